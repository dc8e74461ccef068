"""Safetensors files: opened within the limit, with an error of the reader's own class."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hdgan.errors import CheckpointError, DataError, HdganError
from hdgan.files.safetensors import open_safetensors


def test_tensors_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": np.arange(3)}, file)
    with open_safetensors(file) as opened:
        assert opened.get_tensor("x").tolist() == [0, 1, 2]


@pytest.mark.parametrize("error", [CheckpointError, DataError])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.safetensors \(0 bytes\) is not a readable safetensors file .*: pack again"),
        (struct.pack("<Q", 20_000_000) + b"{" + b" " * 20_000_000, "header of 20000000 bytes, .*HDGAN_MAX_GIB"),
    ],
)
def test_damaged_and_huge_files_are_refused(
    tmp_path: Path, error: type[HdganError], content: bytes, message: str
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(error, match=message), open_safetensors(file, remedy="pack again", error=error):
        pass
