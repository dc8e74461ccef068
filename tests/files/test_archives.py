"""Archives that unpack to far more than they are, and those that may be read."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.errors import CheckpointError, DataError
from hdgan.files import archives
from hdgan.files.archives import open_archive


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.zip"


def write_zip(file: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def claim(file: Path, size: int) -> None:
    """Let the directory of an archive say that its last member has another size."""
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", size)
    file.write_bytes(bytes(content))


def test_ordinary_archives_are_opened(file: Path) -> None:
    np.savez_compressed(file.with_suffix(".npz"), a=np.zeros((100, 100)))
    torch.save({"a": torch.ones(3)}, file)
    for path, member in ((file.with_suffix(".npz"), "a.npy"), (file, "file/data.pkl")):
        with open_archive(path, CheckpointError) as archive:
            assert member in archive.namelist()


def test_a_bomb_is_refused_by_what_it_declares(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {"a": bytes(10)})
    claim(file, 2**31)
    with (
        pytest.raises(DataError, match=r"file\.zip is an archive of \d+ bytes, which takes 2\.0 GiB of memory"),
        open_archive(file, DataError),
    ):
        pass
    write_zip(file, {"a": bytes(3 * 2**20), "b": bytes(3 * 2**20)})
    monkeypatch.setenv("HDGAN_MAX_GIB", str(5 / 1024))
    with pytest.raises(DataError, match="more than the limit"), open_archive(file, DataError):
        pass


def test_a_member_gives_no_more_than_it_declares(file: Path) -> None:
    write_zip(file, {"a": bytes(2**20)})
    claim(file, 100)
    with open_archive(file, DataError) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("a")


def test_an_archive_may_be_as_large_as_it_is_on_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {"a": bytes(3 * 2**20)}, zipfile.ZIP_STORED)
    monkeypatch.setenv("HDGAN_MAX_GIB", str(2 / 1024))
    with open_archive(file, DataError) as archive:
        assert len(archive.read("a")) == 3 * 2**20


def test_a_directory_of_countless_members_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {f"{number}": b"" for number in range(400)})
    monkeypatch.setattr(archives, "_DIRECTORY_BYTES", 10_000)
    with pytest.raises(zipfile.BadZipFile, match="directory is too large"), open_archive(file, DataError):
        pass


def test_what_is_not_unpacked_piece_by_piece_is_refused(file: Path) -> None:
    write_zip(file, {"a": bytes(1000)}, zipfile.ZIP_BZIP2)
    with pytest.raises(zipfile.BadZipFile, match="cannot be unpacked piece by piece"), open_archive(file, DataError):
        pass


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(DataError), open_archive(path, DataError):
            pass


def test_a_member_may_be_larger_than_a_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(50_000)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        write_zip(file, {"a": content}, compression)
        monkeypatch.setattr(archives, "_DIRECTORY_BYTES", 10_000)
        with open_archive(file, DataError) as archive:
            assert archive.read("a") == content
