"""Archives that unpack to far more than they are, and those that may be read."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan import archives
from hdgan.archives import require_bounded_archive, require_bounded_tensors
from hdgan.errors import CheckpointError

Check = Callable[[Path, type[CheckpointError]], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.zip"


def write_zip(file: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def claim(file: Path, size: int) -> None:
    """Let the directory of an archive say that its only member has another size."""
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", size)
    file.write_bytes(bytes(content))


def test_ordinary_archives_pass(file: Path) -> None:
    np.savez_compressed(file.with_suffix(".npz"), a=np.zeros((100, 100)))
    require_bounded_archive(file.with_suffix(".npz"), CheckpointError)
    tensors = {"a": torch.ones(3), "b": torch.nn.Parameter(torch.ones(2)), "c": [1.5, None, (True, "x")]}
    for old in (False, True):
        torch.save(tensors, file, _use_new_zipfile_serialization=not old)
        require_bounded_tensors(file, CheckpointError)


@pytest.mark.parametrize("check", [require_bounded_archive, require_bounded_tensors])
def test_a_bomb_is_refused_by_what_it_declares(check: Check, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {"a/data.pkl": bytes(3 * 2**20), "a/data/0": bytes(3 * 2**20)})
    monkeypatch.setenv("HDGAN_MAX_GIB", str(5 / 1024))
    with pytest.raises(CheckpointError, match=r"file\.zip is an archive of \d+ bytes that unpacks to 6291456, which"):
        check(file, CheckpointError)
    write_zip(file, {"a": bytes(10)})
    claim(file, 2**31)
    with pytest.raises(CheckpointError, match=r"which takes 2\.0 GiB of memory, more than the limit"):
        check(file, CheckpointError)


def test_an_archive_may_be_as_large_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {"a": bytes(3 * 2**20)}, zipfile.ZIP_STORED)
    monkeypatch.setenv("HDGAN_MAX_GIB", str(2 / 1024))
    require_bounded_archive(file, CheckpointError)


def test_a_directory_of_countless_members_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(file, {f"{number}": b"" for number in range(400)})
    monkeypatch.setenv("HDGAN_MAX_GIB", str(1 / 1024))
    with pytest.raises(CheckpointError, match=r"an archive with a directory of \d+ bytes"):
        require_bounded_archive(file, CheckpointError)


PROGRAMS = {
    "steps": (pickle.EMPTY_LIST * 1002, "more than 1000 steps"),
    "bytes": (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "builtins bytearray, which no tensor needs"),
    "text": (b"c_codecs\nencode\n.", "_codecs encode, which no tensor needs"),
    "cut": (b"X\xff\xff\xff\x7fabc", "cut off"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("program", "says"), PROGRAMS.values(), ids=PROGRAMS)
def test_programs_that_would_fill_the_memory(
    program: bytes, says: str, old: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MOST_STEPS", 1000)
    if old:
        file.write_bytes(b"\x80\x02" + program)
    else:
        write_zip(file, {"archive/data.pkl": b"\x80\x02" + program})
    with pytest.raises(CheckpointError, match=f"file.zip .*{says}"):
        require_bounded_tensors(file, CheckpointError)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"text", b"ustar" * 1000], ids=["empty", "cut", "text", "tar"])
@pytest.mark.parametrize("check", [require_bounded_archive, require_bounded_tensors])
def test_other_files_are_refused(check: Check, content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"file\.zip \({len(content)} bytes\) is cut off or of another kind"):
        check(file, CheckpointError)
    with pytest.raises(CheckpointError, match="is a folder"):
        check(file.parent, CheckpointError)


def test_members_that_are_not_unpacked_piece_by_piece(file: Path) -> None:
    write_zip(file, {"a": bytes(1000)}, zipfile.ZIP_BZIP2)
    with pytest.raises(CheckpointError, match="'a' is compressed in an unusual way"):
        require_bounded_archive(file, CheckpointError)


def test_a_cut_archive(file: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(1000)}, buffer)
    file.write_bytes(buffer.getvalue()[:-100])
    with pytest.raises(CheckpointError, match="is cut off or of another kind"):
        require_bounded_tensors(file, CheckpointError)
