"""Writing PNG row by row, with up to four channels of 8 or 16 bits. Pillow holds the whole image, and writes 16 bits
only for one channel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from hdgan.files.atomic import atomic_file
from hdgan.files.rows import Rows, bands, checked_rows

COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by the number of channels: grey, grey and opacity, RGB, RGB and opacity."""
_BLOCK, _PIECE = 2**20, 2**16
"""Bytes of pixels that are filtered at a time, and compressed bytes that a chunk has at least, but for the last one."""


def write_png(
    path: Path, rows: Rows, height: int, width: int, channels: int, dtype: Literal["uint8", "uint16"]
) -> None:
    """Write a PNG atomically. One block of rows is in memory, and a few MiB or a few rows, whichever is more.

    Args:
        path: its ending is not looked at.
        rows: the image from top to bottom, in blocks [n, W, C] of `dtype`.
        height: rows of the image.
        width: pixels of a row.
        channels: 1 to 4.
        dtype: of the numbers.

    Raises:
        HdganError: as `atomic_file`.
        ValueError: `rows` are not the image that was announced.
    """
    header = struct.pack(">2I5B", width, height, 8 * np.dtype(dtype).itemsize, COLOR_TYPES[channels], 0, 0, 0)
    length = max(1, _BLOCK // (width * channels * np.dtype(dtype).itemsize))
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))
        for piece in _compressed(bands(checked_rows(rows, height, width, channels, dtype), length)):
            file.write(_chunk(b"IDAT", piece))
        file.write(_chunk(b"IEND", b""))


def _compressed(rows: Iterator[np.ndarray]) -> Iterator[bytes]:
    """The pixels as a zlib stream, in pieces; `rows` are blocks of about a MiB."""
    deflate, piece = zlib.compressobj(), b""
    above: np.ndarray | None = None
    for block in rows:
        stored = np.ascontiguousarray(block, block.dtype.newbyteorder(">")).reshape(len(block), -1).view(np.uint8)
        # Each row begins with its filter: 2 is the difference to the row above.
        filtered = np.insert(stored, 0, 2, axis=1)
        filtered[1:, 1:] -= stored[:-1]
        if above is not None:
            filtered[0, 1:] -= above
        above = stored[-1].copy()
        piece += deflate.compress(filtered.data)
        if len(piece) >= _PIECE:
            yield piece
            piece = b""
    yield piece + deflate.flush()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
