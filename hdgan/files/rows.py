"""Images that arrive as blocks of rows, from top to bottom, so that a picture need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

Rows = Iterable[np.ndarray]
"""Blocks [n, W, C] of an image, from top to bottom; n may differ from block to block."""


def checked_rows(rows: Rows, height: int, width: int, channels: int, dtype: str) -> Iterator[np.ndarray]:
    """Yield the blocks of `rows`, and make sure that they are the image that was announced.

    Raises:
        ValueError: a block has another width, number of channels or type, or there are fewer or more rows.
    """
    n = 0
    for block in rows:
        if block.shape[1:] != (width, channels) or block.dtype != dtype:
            raise ValueError(f"a block {block.shape} of {block.dtype} in an image [., {width}, {channels}] of {dtype}")
        n += len(block)
        if n > height:
            break
        yield block
    if n != height:
        raise ValueError(f"{'more' if n > height else n} rows for an image of {height}")


def bands(rows: Rows, length: int) -> Iterator[np.ndarray]:
    """Join and divide blocks into bands of `length` rows; the last band has what is left.

    At most one band and one block are in memory.
    """
    waiting: list[np.ndarray] = []
    n = 0
    for block in rows:
        while len(block):
            part, block = block[: length - n], block[length - n :]
            waiting.append(part)
            n += len(part)
            if n == length:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting, n = [], 0
    if waiting:
        yield np.concatenate(waiting)
