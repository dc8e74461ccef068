"""What killed processes leave is removed, and what others are writing is not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hdgan.files import atomic_file, remove_dead, temporaries


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


WRITER = """
import sys
from pathlib import Path
from hdgan.files import atomic_file, atomic_folder

write = atomic_folder if sys.argv[2] == "folder" else atomic_file
with write(Path(sys.argv[1])) as temporary:
    print(temporary.name, flush=True)
    sys.stdin.read()
    if write is atomic_file:
        temporary.write_text("whole")
"""


@pytest.fixture
def writer(tmp_path) -> Iterator[Callable[[str, str], tuple[subprocess.Popen[str], Path]]]:
    """Start a process in the middle of writing NAME; it ends the writing when its standard input ends."""
    processes = []

    def start(name: str, kind: str) -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", WRITER, str(tmp_path / name), kind]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, tmp_path / process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_write_removes_what_a_killed_process_left(tmp_path, writer, kind):
    process, temporary = writer("a", kind)
    process.kill()
    process.communicate()
    assert temporary.exists()
    with atomic_file(tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == ["b"]  # noqa: PTH208


def test_processes_that_write_into_one_folder_do_not_disturb_each_other(tmp_path, writer):
    process, temporary = writer("a", "file")
    other, _ = writer("b", "folder")
    assert not remove_dead(tmp_path)
    with atomic_file(tmp_path / "c") as ours:
        assert temporary.exists()
        ours.write_text("ours")
        other.communicate()
    process.communicate()
    assert (process.returncode, other.returncode) == (0, 0)
    assert content(tmp_path) == {"a": "whole", "c": "ours"}
    assert (tmp_path / "b").is_dir()


def test_only_names_of_ours_are_removed(tmp_path):
    ours = tmp_path / ".a.png.0123abcd.hdtmp"
    earlier = [tmp_path / ".a.png.0123abcd.tmp", tmp_path / ".step-7.tmp"]
    linked, link = tmp_path / "linked", tmp_path / ".link.0123abcd.hdtmp"
    foreign = [tmp_path / name for name in (".a.png.tmp", "a.0123abcd.hdtmp", ".a.0123abc.hdtmp", ".b.0123abcd.tmp")]
    for path in (ours, *earlier, linked, *foreign):
        path.touch()
    link.symlink_to(linked)
    assert remove_dead(tmp_path)
    assert not ours.exists()
    assert all(path.exists() for path in earlier)
    assert remove_dead(tmp_path, lambda target: target.name in ("a.png", "step-7"))
    assert not any(path.exists() for path in earlier)
    assert all(path.exists() for path in (link, linked, *foreign))


def test_a_folder_that_was_moved_aside_comes_back(tmp_path):
    """The process was killed while the folder was replaced, where two cannot change places in one step."""
    aside, new = (tmp_path / f".run.0123abcd.hdtmp{ending}" for ending in (".old", ""))
    for folder in (aside, new):
        folder.mkdir()
    (aside / "file").write_text("old")
    remove_dead(tmp_path)
    assert content(tmp_path) == {"run/file": "old"}
    assert not new.exists()
    (tmp_path / "run").rename(aside)
    (tmp_path / "run").mkdir()
    remove_dead(tmp_path)
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208
    assert content(tmp_path) == {}


@pytest.mark.skipif(temporaries.fcntl is None, reason="Windows has no such locks")
def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    dead = tmp_path / ".a.0123abcd.hdtmp"
    dead.touch()
    monkeypatch.setattr(temporaries.fcntl, "flock", fail)
    with atomic_file(tmp_path / "b") as temporary:
        temporary.write_text("new")
    assert content(tmp_path) == {".a.0123abcd.hdtmp": "", "b": "new"}
