"""Brush strokes and polygons as masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from hdgan.errors import ConfigError
from hdgan.wording import count

Point = tuple[float, float]
"""x and y in pixels; the centre of the first pixel is (0.5, 0.5)."""

_SMALLEST = 0.5**0.5
"""Radius of a brush that covers at least one pixel at any position."""
_TOLERANCE = 0.25
"""Pixels between a thinned stroke and the one that was drawn."""
_CHUNK_ROWS = 1 << 19
"""Rows, summed over the segments, that are drawn at once; this bounds the memory."""
_EPSILON = 1e-9
"""Pixels; a shorter segment has no direction."""


def polygon_mask(points: Sequence[Point], size: tuple[int, int]) -> np.ndarray:
    """The inside and the border of a polygon, [H, W] bool.

    Args:
        points: at least three corners.
        size: width and height of the mask.

    Raises:
        ConfigError: there are fewer corners.
    """
    if len(points) < 3:
        raise ConfigError(
            f"the polygon has {count(len(points), 'corner')}: click at least three, then press Enter to close it"
        )
    image = Image.new("1", size)
    # In Pillow the centres of pixels have integer coordinates.
    ImageDraw.Draw(image).polygon([(x - 0.5, y - 0.5) for x, y in points], fill=1, outline=1)
    return np.asarray(image)


def stroke_mask(points: Sequence[Point], width: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that a round brush covers along a path, [H, W] bool.

    Args:
        points: at least one point of the path.
        width: diameter of the brush in pixels.
        size: width and height of the mask.

    Raises:
        ConfigError: there are no points.
    """
    if not points:
        raise ConfigError("the stroke has no points: draw it again")
    return _draw(thinned(np.array(points, float)), max(width / 2, _SMALLEST), size)


def thinned(path: np.ndarray) -> np.ndarray:
    """Drop points of a path so that every dropped point is at most a quarter of a pixel from a kept one.

    Consecutive points in the same square of this diagonal are reduced to the first one. The last point is kept.

    Args:
        path: [N, 2] float64, x and y of each point; at least one.
    """
    squares = np.floor(path * (2**0.5 / _TOLERANCE))
    kept = np.ones(len(path), bool)
    kept[1:] = (squares[1:] != squares[:-1]).any(axis=1)
    kept[-1] = True
    return path[kept]


def _draw(path: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that a disc covers along a path, [H, W] bool.

    Segments are drawn in chunks of about `_CHUNK_ROWS` rows, taken from the whole path. After each chunk, segments that
    would change nothing are dropped. So the cost of a scribble depends on the area that it covers, not on its length.
    """
    ends = np.stack([path[:-1], path[1:]], axis=1) if len(path) > 1 else path[None].repeat(2, axis=1)
    box = np.stack([ends.min(axis=1) - radius, ends.max(axis=1) + radius + 1], axis=1)
    box = np.clip(np.floor(box), 0, size).astype(np.int64)  # first pixel and one after the last, in x and y
    mask = np.zeros(size[::-1], bool)
    while len(ends):
        n_chunks = (box[:, 1, 1] - box[:, 0, 1]).sum() // _CHUNK_ROWS + 1
        chunk = np.zeros(len(ends), bool)
        chunk[::n_chunks] = True
        mask |= _cover(ends[chunk], box[chunk, :, 1], radius, size)
        chunk |= _is_covered(mask, box)
        ends, box = ends[~chunk], box[~chunk]
    return mask


def _is_covered(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether all pixels of each box [N, 2, 2] are set in a mask, [N] bool."""
    missing = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)  # above and to the left of each pixel
    np.cumsum(np.cumsum(~mask, axis=0, dtype=np.int32), axis=1, out=missing[1:, 1:])
    (left, top), (right, bottom) = box[:, 0].T, box[:, 1].T
    return missing[bottom, right] - missing[top, right] - missing[bottom, left] + missing[top, left] == 0


def _cover(ends: np.ndarray, rows_of: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that a disc covers along segments, [H, W] bool.

    The slope of a segment gives the points where the disc reaches furthest left and right in a row of pixels. So each
    row needs only its two ends.

    Args:
        ends: [N, 2, 2], both ends of each segment.
        rows_of: [N, 2], for each segment the first row that it can touch and one after the last.
    """
    n = rows_of[:, 1] - rows_of[:, 0]
    index = np.repeat(np.arange(len(ends)), n)
    rows = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n - rows_of[:, 0], n)
    (x, y), (dx, dy) = ends[:, 0].T, (ends[:, 1] - ends[:, 0]).T
    flat = np.abs(dy) < _EPSILON
    steepness = 1 / np.where(flat, np.inf, dy)
    furthest = radius * dx / np.maximum(np.hypot(dx, dy), _EPSILON) / np.where(flat, _EPSILON, np.abs(dy))
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
