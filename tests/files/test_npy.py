from __future__ import annotations

import io

import numpy as np
import pytest

from hdgan.files.npy import read_npy_header


def file_of(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version)
    return buffer.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_headers_are_read(version: tuple[int, int]) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">u2").reshape(2, 3))
    stream = io.BytesIO(file_of(array, version))
    assert read_npy_header(stream) == ((2, 3), True, np.dtype(">u2"))
    assert stream.read() == array.tobytes(order="F")


@pytest.mark.parametrize(
    ("old", "new"), [(b"'<i4'", b"'<i4("), (b"(2, 3)", b"(2, 3\x00"), (b"{", b"("), (b"'descr'", b"'other'")]
)
def test_damaged_headers_are_one_kind_of_error(old: bytes, new: bytes) -> None:
    content = file_of(np.zeros((2, 3), "<i4")).replace(old, new)
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's own words differ by version
        read_npy_header(io.BytesIO(content))
