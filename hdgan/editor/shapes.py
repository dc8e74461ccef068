"""Brush strokes and polygons as masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from hdgan.errors import ConfigError

Point = tuple[float, float]
"""x and y in pixels; the middle of the first pixel is (0.5, 0.5)."""


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
    ImageDraw.Draw(image).polygon(_pixels(points), fill=1, outline=1)
    return np.asarray(image)


def stroke(points: Sequence[Point], width: float, size: tuple[int, int]) -> np.ndarray:
    """What a round brush covers on its way as a mask, [H, W] bool.

    Args:
        points: its way, one point or more.
        width: of the brush, in pixels.
        size: width and height of the picture.
    """
    image, radius = Image.new("1", size), width / 2
    draw, way = ImageDraw.Draw(image), _pixels(points)
    draw.line(way, fill=1, width=max(round(width), 1))
    for x, y in way:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(image)


def _pixels(points: Sequence[Point]) -> list[Point]:
    """In Pillow's coordinates, where whole numbers are the middles of pixels."""
    return [(x - 0.5, y - 0.5) for x, y in points]
