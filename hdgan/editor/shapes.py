"""Brush strokes and polygons as masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from hdgan.errors import ConfigError
from hdgan.wording import count

Point = tuple[float, float]
"""x and y in pixels; the middle of the first pixel is (0.5, 0.5)."""

_SMALLEST = 0.5**0.5
"""Radius of a brush that covers a pixel wherever it is set."""
_NEAR = 0.25
"""Pixels that a thinned stroke may be away from the one that was drawn."""
_PAIRS = 1 << 19
"""Segments times rows that are worked on at once; bounds the memory."""
_TINY = 1e-9
"""Pixels; what is shorter has no direction."""


def polygon(points: Sequence[Point], size: tuple[int, int]) -> np.ndarray:
    """The inside of a polygon and its border as a mask, [H, W] bool.

    Args:
        points: its corners, three or more.
        size: width and height of the picture.

    Raises:
        ConfigError: fewer corners.
    """
    if len(points) < 3:
        raise ConfigError(
            f"the polygon has {count(len(points), 'corner')}: click three or more, then press Enter to close it"
        )
    image = Image.new("1", size)
    # Pillow's whole numbers are the middles of pixels.
    ImageDraw.Draw(image).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1, outline=1)
    return np.asarray(image)


def stroke(points: Sequence[Point], width: float, size: tuple[int, int]) -> np.ndarray:
    """What a round brush covers on its way as a mask, [H, W] bool.

    Args:
        points: its way, one point or more.
        width: of the brush, in pixels.
        size: width and height of the picture.

    Raises:
        ConfigError: no point.
    """
    if not points:
        raise ConfigError("the stroke has no points: draw it again")
    return _swept(thinned(np.array(points, float)), max(width / 2, _SMALLEST), size)


def thinned(way: np.ndarray) -> np.ndarray:
    """The way of a brush in fewer points: a brush that follows it comes within a quarter of a pixel of the whole way.

    Of neighbours that share a square of this diagonal the first is kept, and the last point of all.

    Args:
        way: [N, 2] float64, x and y of each point; at least one.
    """
    squares = np.floor(way * (2**0.5 / _NEAR))
    kept = np.ones(len(way), bool)
    kept[1:] = (squares[1:] != squares[:-1]).any(axis=1)
    kept[-1] = True
    return way[kept]


def _swept(way: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """What a disc covers that goes along a way, [H, W] bool.

    Segments are drawn in turns of about `_PAIRS` rows, taken from all over the way. After each turn those that would
    change nothing are dropped, so that a scribble to and fro costs no more than the area that it covers.
    """
    ends = np.stack([way[:-1], way[1:]], axis=1) if len(way) > 1 else way[None].repeat(2, axis=1)
    box = np.stack([ends.min(axis=1) - radius, ends.max(axis=1) + radius + 1], axis=1)
    box = np.clip(np.floor(box), 0, size).astype(np.int64)  # first pixel and the one beyond the last, x and y
    mask = np.zeros(size[::-1], bool)
    while len(ends):
        turns = (box[:, 1, 1] - box[:, 0, 1]).sum() // _PAIRS + 1
        now = np.zeros(len(ends), bool)
        now[::turns] = True
        mask |= _cover(ends[now], box[now, :, 1], radius, size)
        now |= _is_covered(mask, box)
        ends, box = ends[~now], box[~now]
    return mask


def _is_covered(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether all pixels of a box [N, 2, 2] lie in a mask, [N] bool."""
    missing = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)  # above and to the left of each pixel
    np.cumsum(np.cumsum(~mask, axis=0, dtype=np.int32), axis=1, out=missing[1:, 1:])
    (left, top), (right, bottom) = box[:, 0].T, box[:, 1].T
    return missing[bottom, right] - missing[top, right] - missing[bottom, left] + missing[top, left] == 0


def _cover(ends: np.ndarray, rows_of: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """What a disc covers that goes along segments, [H, W] bool.

    Where on its way the disc reaches furthest to the left and to the right in a row of pixels follows from the slope
    of the segment. So no pixel is looked at but those at the two ends of a row.

    Args:
        ends: [N, 2, 2] of the segments.
        rows_of: [N, 2] the first row that each may touch, and the one beyond the last.
    """
    n = rows_of[:, 1] - rows_of[:, 0]
    index = np.repeat(np.arange(len(ends)), n)
    rows = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n - rows_of[:, 0], n)
    (x, y), (dx, dy) = ends[:, 0].T, (ends[:, 1] - ends[:, 0]).T
    flat = np.abs(dy) < _TINY
    steepness = 1 / np.where(flat, np.inf, dy)
    furthest = radius * dx / np.maximum(np.hypot(dx, dy), _TINY) / np.where(flat, _TINY, np.abs(dy))
    x, dx, dy, steepness, furthest = (values[index] for values in (x, dx, dy, steepness, furthest))
    above = rows + 0.5 - y[index]

    def reach(side: int) -> tuple[np.ndarray, np.ndarray]:
        t = np.clip(above * steepness + side * furthest, 0, 1)
        chord = radius**2 - (above - t * dy) ** 2
        return x + t * dx + side * np.sqrt(np.maximum(chord, 0)) - 0.5, chord >= 0

    (left, touched), (right, _) = reach(-1), reach(1)
    begin = np.clip(np.ceil(left), 0, size[0]).astype(np.int64)
    end = np.maximum(np.clip(np.floor(right) + 1, 0, size[0]).astype(np.int64), begin)
    start_of_row = rows * (size[0] + 1)
    shape, bins = (size[1], size[0] + 1), size[1] * (size[0] + 1)
    steps = np.bincount((start_of_row + begin)[touched], minlength=bins) - np.bincount(
        (start_of_row + end)[touched], minlength=bins
    )
    return np.cumsum(steps.reshape(shape), axis=1)[:, :-1] > 0
