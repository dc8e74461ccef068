"""Writing pyramids: TIFFs with smaller copies of the image, which viewers of microscopy images open at any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from hdgan.config.bounds import Depth
from hdgan.files.atomic import atomic_file
from hdgan.files.rows import Rows, bands, checked_rows
from hdgan.files.slides import slides

TILE = 256
"""Pixels of the sides of a tile."""
SMALLEST = 512
"""Pixels of the longest side at which no smaller level follows."""
_BLOCK, _BUFFER = 2**22, 2**25
"""Bytes of pixels that are averaged at a time, and of tiles that are compressed at a time."""


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the levels: each has half the sides of the one before, rounded up."""
    sizes = [(height, width)]
    while max(sizes[-1]) > SMALLEST:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def write_pyramid(path: Path, rows: Rows, height: int, width: int, channels: int, dtype: Depth) -> None:
    """Write an image atomically as an OME-TIFF with smaller levels: a BigTIFF of deflated tiles.

    A pixel of a level is the mean of the up to 2×2 pixels of the level before. `rows` are read once. While a level is
    written, the next one goes to a temporary file without a name beside `path`; all of them together take a third of
    the bytes of the pixels. In memory are one block of rows, one row of tiles, and the tiles that are being compressed.

    Args:
        path: its ending is not looked at; .ome.tif says most to other programs.
        rows: the image from top to bottom, in blocks [n, W, C] of `dtype`.
        height: rows of the image.
        width: pixels of a row.
        channels: 3 are RGB and 4 are RGB and opacity, unless they are floats; others are shades of grey.
        dtype: of the numbers.

    Raises:
        ConfigError: tifffile is not installed.
        HdganError: as `atomic_file`.
        ValueError: `rows` are not the image that was announced.
    """
    tifffile = slides("tifffile", "writing a pyramid")
    sizes = level_sizes(height, width)
    options: dict[str, Any] = {
        "dtype": dtype,
        "tile": (TILE, TILE),
        "compression": "adobe_deflate",
        "predictor": True,
        "photometric": "rgb" if channels in (3, 4) and dtype != "float32" else "minisblack",
        "planarconfig": "contig" if channels > 1 else None,
        "buffersize": _BUFFER,
    }
    tags: dict[str, Any] = {"subifds": len(sizes) - 1, "metadata": {"axes": "YXS" if channels > 1 else "YX"}}
    rows = checked_rows(rows, height, width, channels, dtype)
    with atomic_file(path) as temporary, ExitStack() as stack:
        file = stack.enter_context(tifffile.TiffWriter(temporary, bigtiff=True, ome=True))
        for size, smaller in zip(sizes, [*sizes[1:], None], strict=True):
            scratch = stack.enter_context(TemporaryFile(dir=path.parent)) if smaller else None
            tiles = _tiles(rows, scratch)
            file.write(tiles, shape=(*size, channels) if channels > 1 else size, **options, **tags)
            if next(tiles, None) is not None:
                raise AssertionError(f"{path}: tiles beyond a level of {size}")
            if scratch is not None and smaller is not None:
                rows = _stored(scratch, (*smaller, channels), dtype)
            tags = {"subfiletype": 1, "metadata": None}


def _tiles(rows: Rows, scratch: IO[bytes] | None) -> Iterator[np.ndarray]:
    """The tiles of a level, row by row; the level of half its sides is added to a file meanwhile."""
    for band in bands(rows, TILE):
        if scratch is not None:
            step = max(2, _BLOCK // band[0].nbytes // 2 * 2)
            for top in range(0, len(band), step):
                scratch.write(_halved(band[top : top + step]).data)
        yield from (band[:, left : left + TILE] for left in range(0, band.shape[1], TILE))


def _halved(block: np.ndarray) -> np.ndarray:
    """The means of 2×2 pixels of a block [n, W, C]; a last row or column without a partner counts twice."""
    height, width, _ = block.shape
    values = np.pad(block, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    wide = np.float32 if block.dtype.kind == "f" else np.uint32
    pairs = values[::2].astype(wide) + values[1::2]
    total = pairs[:, ::2] + pairs[:, 1::2]
    means = total / 4 if wide is np.float32 else (total + 2) // 4
    return np.ascontiguousarray(means, block.dtype)


def _stored(scratch: IO[bytes], shape: tuple[int, int, int], dtype: str) -> Iterator[np.ndarray]:
    """The rows of a level [H, W, C] that is complete in a file, in blocks."""
    scratch.seek(0)
    height, width, channels = shape
    row = width * channels * np.dtype(dtype).itemsize
    step = max(1, _BLOCK // row)
    for top in range(0, height, step):
        content = scratch.read(min(step, height - top) * row)
        yield np.frombuffer(content, dtype).reshape(-1, width, channels)
