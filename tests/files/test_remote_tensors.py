"""Safetensors files elsewhere: the same tensors as safetensors reads, whole or in ranges, and damage that is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from hdgan.errors import DataError
from hdgan.files import remote_tensors
from hdgan.files.remote import RemotePath, located
from hdgan.files.remote_tensors import RemoteTensors

TENSORS = {
    "a": np.arange(300, dtype=np.float32).reshape(10, 30),
    "b": np.arange(7, dtype=np.int32),
    "c": np.arange(400, dtype=np.uint16).reshape(2, 10, 20),
    "d": np.array(5, np.uint8),
}


@pytest.fixture
def file(in_memory: Callable[[Path], Path], tmp_path: Path) -> RemotePath:
    save_file(TENSORS, tmp_path / "x.safetensors", {"about": "text"})
    return RemotePath(located(in_memory(tmp_path), "") / "x.safetensors")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("head", [16, 600, 2**18])
def test_tensors_are_those_of_safetensors(
    file: RemotePath, whole: bool, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_tensors, "_HEAD", head)
    opened = RemoteTensors(file, file.stat().st_size, "pack again", whole=whole)
    assert opened.metadata() == {"about": "text"}
    for name, values in TENSORS.items():
        found = opened.get_tensor(name)
        assert (found.dtype, found.shape) == (values.dtype, values.shape)
        assert np.array_equal(found, values)
    with pytest.raises(
        DataError, match=r"x\.safetensors cannot be read \(its header does not describe e\); pack again"
    ):
        opened.get_tensor("e")


def test_ranges_fetch_what_is_asked_for(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = []
    read = RemotePath.read_range
    monkeypatch.setattr(RemotePath, "read_range", lambda *args: ranges.append(args[1:3]) or read(*args))
    monkeypatch.setattr(remote_tensors, "_HEAD", 400)
    RemoteTensors(file, file.stat().st_size, "pack again", whole=False).get_tensor("c")
    assert [end - start for start, end in ranges] == [400, 800]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "its header is no table"),
        (b"{", r"x\.safetensors is damaged"),
        ({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, "does not describe a"),
        ({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 8]}}, "a has another length than its header says"),
        ({"a": {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]}}, "a has another length"),
        ({"a": {"dtype": "U8", "shape": [80], "data_offsets": [0, 80]}}, "a has another length"),
        ({"a": {"dtype": "U8", "shape": [-1, -8], "data_offsets": [0, 8]}}, "a has another length"),
        ({"a": {"dtype": "U8", "shape": "8", "data_offsets": None}}, "does not describe a"),
    ],
)
def test_damage_is_named(file: RemotePath, header: bytes | dict, message: str) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(8)
    fsspec.filesystem("memory").pipe_file(str(file), content)
    with pytest.raises(DataError, match=message):
        RemoteTensors(file, len(content), "pack again", whole=True).get_tensor("a")


def test_another_length_is_named(file: RemotePath, monkeypatch: pytest.MonkeyPatch) -> None:
    size = file.stat().st_size
    with pytest.raises(DataError, match=rf"has {size} bytes, but was written with {size + 1}; pack again"):
        RemoteTensors(file, size + 1, "pack again", whole=True)
    monkeypatch.setattr(remote_tensors, "_HEAD", 400)
    content = file.read_bytes()
    fsspec.filesystem("memory").pipe_file(str(file), content[:-100])
    with pytest.raises(DataError, match=rf"it ends after {size - 100} bytes, but was written with {size}"):
        RemoteTensors(file, size, "pack again", whole=False).get_tensor("c")
    fsspec.filesystem("memory").pipe_file(str(file), struct.pack("<Q", 2**40) + content)
    file.forget()
    with pytest.raises(DataError, match="its header is longer than the file"):
        RemoteTensors(file, size + 8, "pack again", whole=True)
