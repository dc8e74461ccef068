"""Images that are stored in tiles, of which only those are decoded that a window needs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hdgan.data.headers import Header
from hdgan.files.limits import max_bytes

CACHE_BYTES = 2**27
"""Of decoded tiles that are kept from window to window."""

Read = Callable[[int, int, int, int], np.ndarray]
"""Takes top, bottom, left and right; returns the numbers [h, w, C] of that window."""


@dataclass(frozen=True)
class StoredImage:
    """An image or map whose numbers are read by windows, as they are stored."""

    header: Header
    dtype: np.dtype
    read: Read
    close: Callable[[], None]
    colors: np.ndarray | None = None
    """[N, 3] uint8, if the numbers are indices into a palette."""


class TiledImage:
    """An image in tiles, which are decoded when a window needs them, one thread at a time.

    The tiles that were used last stay decoded: `CACHE_BYTES` of them, or more if a single window takes more, up to
    the limit of `hdgan.files.limits`. So where windows are read row by row from left to right, a tile is decoded once
    for each row of windows that it lies in, also if it is as wide as the image.

    Args:
        shape: [H, W, C] of the image.
        tile: (height, width) of a tile.
        dtype: of the numbers, in native byte order.
        decode: gives the tile in a row and column of tiles, [h, w, C]; beyond the image it may be cut off.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        tile: tuple[int, int],
        dtype: np.dtype,
        decode: Callable[[int, int], np.ndarray],
    ) -> None:
        self.shape, self.tile, self.dtype, self._decode = shape, tile, dtype, decode
        self._decoded: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The numbers [h, w, C] of a window."""
        height, width = self.tile
        rows = range(top // height, (bottom - 1) // height + 1)
        columns = range(left // width, (right - 1) // width + 1)
        places = [(row, column) for row in rows for column in columns]
        for place in self._decoded.keys() & places:
            self._decoded.move_to_end(place)  # none of these has to make room for another
        most = self._most(len(places))
        window = np.empty((bottom - top, right - left, self.shape[2]), self.dtype)
        for row, column in places:
            tile = self._tile(row, column, most)
            y, x = row * height, column * width
            upper, lower, first, last = max(y, top), min(y + height, bottom), max(x, left), min(x + width, right)
            part = tile[upper - y : lower - y, first - x : last - x]
            window[upper - top : lower - top, first - left : last - left] = part
        return window

    def _most(self, needed: int) -> int:
        """How many tiles are kept while a window of `needed` tiles is read."""
        one = self.tile[0] * self.tile[1] * self.shape[2] * self.dtype.itemsize
        return max(1, CACHE_BYTES // one, min(needed, max_bytes() // one))

    def _tile(self, row: int, column: int, most: int) -> np.ndarray:
        place = row, column
        if place in self._decoded:
            return self._decoded[place]
        while len(self._decoded) >= most:
            self._decoded.popitem(last=False)
        tile = self._decode(row, column)
        inside = (min(side, all_ - at * side) for side, all_, at in zip(self.tile, self.shape, place, strict=False))
        if tile.ndim != 3 or tile.shape[2] != self.shape[2] or any(map(int.__lt__, tile.shape, inside)):
            raise ValueError(f"the tile in row {row} and column {column} has the shape {tile.shape}")
        self._decoded[place] = tile
        return tile
