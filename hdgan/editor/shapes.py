"""Brush strokes and polygons as masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from hdgan.errors import ConfigError

Point = tuple[float, float]
"""x and y in pixels; the middle of the first pixel is (0.5, 0.5)."""

_SMALLEST = 0.5**0.5
"""Radius of a brush that covers a pixel wherever it is set."""


def polygon(points: Sequence[Point], size: tuple[int, int]) -> np.ndarray:
    """The inside of a polygon and its border as a mask, [H, W] bool.

    Args:
        points: its corners, three or more.
        size: width and height of the picture.

    Raises:
        ConfigError: fewer corners.
    """
    if len(points) < 3:
        raise ConfigError(f"the polygon has {len(points)} corners: click three or more, then press Enter to close it")
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
    mask = np.zeros(size[::-1], bool)
    radius = max(width / 2, _SMALLEST)
    for (x0, y0), (x1, y1) in pairwise([points[0], *points]):
        columns, rows = _reach(x0, x1, radius, size[0]), _reach(y0, y1, radius, size[1])
        y, x = np.ogrid[rows, columns]
        x, y, dx, dy = x + 0.5 - x0, y + 0.5 - y0, x1 - x0, y1 - y0
        nearest = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)  # on the way from 0 to 1
        mask[rows, columns] |= (x - nearest * dx) ** 2 + (y - nearest * dy) ** 2 <= radius**2
    return mask


def _reach(start: float, end: float, radius: float, length: int) -> slice:
    """Pixels of a side that a line with this radius may touch."""
    low, high = min(start, end) - radius, max(start, end) + radius
    return slice(min(max(int(low), 0), length), min(max(int(high) + 1, 0), length))
