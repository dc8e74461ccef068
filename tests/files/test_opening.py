"""What may be opened, and names that lead out of their folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from hdgan.errors import ConfigError, DataError
from hdgan.files import leads_out, require_file, require_no_file, same_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is a pipe, device or socket, not a file"),
        ("device", "device is a pipe, device or socket, not a file"),
        ("loop", r"loop cannot be opened \(Too many levels of symbolic links\): check the path"),
        ("absent", "absent does not exist: check the path"),
        ("x" * 300, r"xxx cannot be opened \(File name too long\)"),
        ("a\0b", "a\0b cannot be opened"),
    ],
)
def test_what_is_no_file_is_refused_before_it_is_opened(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_file(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=says):
        require_file(tmp_path / name, DataError)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\\..\\x", "/x", "..", ".", "", "//", "./.", "a\0b"])
def test_names_that_lead_out_of_a_folder(name: str) -> None:
    assert leads_out(name)


@pytest.mark.parametrize("name", ["x", "a/b", "..x", "x..y", "a b", "caf\u00e9", ".hidden", "a\\b"])
def test_names_that_stay_in_a_folder(name: str) -> None:
    assert not leads_out(name)


@pytest.mark.parametrize("kind", ["file", "fifo", "loop"])
def test_what_is_no_folder_is_refused_before_the_work_for_it(kind: str, tmp_path: Path) -> None:
    there = tmp_path / "out"
    {"file": there.touch, "fifo": partial(os.mkfifo, there), "loop": partial(there.symlink_to, there)}[kind]()
    with pytest.raises(ConfigError, match=r"out .*exists and is not a folder: choose another"):
        require_no_file(there)
    with pytest.raises(ConfigError, match=rf"^out {there}/a/b lies in {there}, which is not a folder: choose another$"):
        require_no_file(there / "a" / "b")
    require_no_file(tmp_path)
    require_no_file(tmp_path / "new")


def test_a_loop_of_links_is_no_other_place(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("folder")
    assert same_path(tmp_path / "link" / "absent", tmp_path / "folder" / "absent")
    assert same_path(tmp_path / "loop", tmp_path / "loop")
    for other in ("folder", "link", "absent"):
        assert not same_path(tmp_path / "loop" / "x", tmp_path / other / "x")
