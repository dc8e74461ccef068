"""Safetensors files elsewhere, of which only the tensors that are asked for are fetched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hdgan.errors import DataError
from hdgan.files.json import parse_json
from hdgan.files.limits import require_bounded
from hdgan.files.remote import RemotePath

_HEAD = 2**18
"""Bytes that the first request fetches: the header, and the small tensors behind it."""
_GROWTH = 128
"""As of hdgan.files.safetensors."""
_TYPES = {"U8": "|u1", "U16": "<u2", "I32": "<i4", "F32": "<f4"}


class RemoteTensors:
    """A safetensors file on storage, with the methods of `safetensors.safe_open` that reading samples takes.

    Args:
        path: the file, which is not cached.
        size: its length in bytes.
        remedy: what the user can do about a damaged file.
        whole: fetch all of it at once, because most of it will be read.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be fetched or is damaged.
    """

    def __init__(self, path: RemotePath, size: int, remedy: str, *, whole: bool) -> None:
        self._path, self._size, self._remedy = path, size, remedy
        whole = whole or size <= 2 * _HEAD
        self._start = path.read_bytes(size) if whole else path.read_range(0, _HEAD, size)
        if whole and len(self._start) != size:
            raise DataError(f"{path} has {len(self._start)} bytes, but was written with {size}; {remedy}")
        length = int.from_bytes(self._start[:8], "little")
        if length > size - 8:
            raise self._damaged("its header is longer than the file")
        require_bounded(path, length * _GROWTH, f"a file with a header of {length} bytes")
        self._data = 8 + length
        self._header = parse_json(self._bytes(8, self._data), str(path), remedy, DataError)
        if not isinstance(self._header, dict):
            raise self._damaged("its header is no table")

    def metadata(self) -> dict[str, str]:
        """The texts that were stored with the tensors."""
        found = self._header.get("__metadata__", {})
        return found if isinstance(found, dict) else {}

    def get_tensor(self, name: str) -> np.ndarray:
        """A tensor as an array that cannot be written to.

        Raises:
            DataError: it is not there, cannot be fetched, or is damaged.
        """
        about: Any = self._header.get(name)
        try:
            dtype, shape = np.dtype(_TYPES[about["dtype"]]), tuple(map(int, about["shape"]))
            begin, end = map(int, about["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"its header does not describe {name}") from error
        length = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or begin < 0 or end - begin != length or self._data + end > self._size:
            raise self._damaged(f"{name} has another length than its header says")
        require_bounded(self._path, length, f"a file with a tensor of {length} bytes")
        return np.frombuffer(self._bytes(self._data + begin, self._data + end), dtype).reshape(shape)

    def _bytes(self, start: int, end: int) -> bytes:
        if end <= len(self._start):
            return self._start[start:end]
        content = self._path.read_range(start, end, self._size)
        if len(content) != end - start:
            raise self._damaged(f"it ends after {start + len(content)} bytes, but was written with {self._size}")
        return content

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self._path} cannot be read ({reason}); {self._remedy}")
