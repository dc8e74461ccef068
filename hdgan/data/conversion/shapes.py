"""Annotated shapes, drawn into label and instance maps in their order.

A coordinate lies between pixels: pixel 0 reaches from 0 to 1. A shape covers the pixels that its corners lie in and
those between them, as Pillow draws it; a box covers each pixel that it touches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from hdgan.data.config import Size
from hdgan.data.conversion.source import SampleMaps
from hdgan.errors import DataError

_FAR = 2**20
"""No coordinate may be farther from the image's corner than that."""
_ROUNDING = 1e-6
"""A turned corner this close to a pixel lies in it."""

Points = Sequence[tuple[float, float]]
Corners = list[tuple[int, int]]


@dataclass(frozen=True)
class Patch:
    """The pixels of a shape: a mask [h, w] whose upper left corner lies at (left, top) of the image."""

    left: int
    top: int
    mask: np.ndarray

    def inside(self, size: Size) -> Patch:
        """The part that lies in an image of this size, which may be empty."""
        left, top = max(0, self.left), max(0, self.top)
        right, bottom = size[0] - self.left, size[1] - self.top
        mask = self.mask[top - self.top : max(0, bottom), left - self.left : max(0, right)]
        return Patch(left, top, mask)


class Area(Protocol):
    """What a shape covers."""

    def patch(self, size: Size) -> Patch:
        """Its pixels in an image of this size. Those outside of the image may be left out."""
        ...


@dataclass(frozen=True)
class BoxArea:
    """A rectangle along rows and columns."""

    left: float
    top: float
    right: float
    bottom: float

    def patch(self, size: Size) -> Patch:
        left, right = sorted((self.left, self.right))
        top, bottom = sorted((self.top, self.bottom))
        x, y = max(0, math.floor(left)), max(0, math.floor(top))
        width = min(max(math.ceil(right), math.floor(left) + 1), size[0]) - x
        height = min(max(math.ceil(bottom), math.floor(top) + 1), size[1]) - y
        return Patch(x, y, np.ones((max(0, height), max(0, width)), bool))


@dataclass(frozen=True)
class PolygonArea:
    """A closed polygon with its outline."""

    points: Points

    def patch(self, size: Size) -> Patch:
        return _drawn(self.points, size, 0, lambda draw, points: draw.polygon(points, fill=1, outline=1))


@dataclass(frozen=True)
class StrokeArea:
    """Lines from point to point."""

    points: Points
    width: int

    def patch(self, size: Size) -> Patch:
        return _drawn(self.points, size, self.width, lambda draw, points: draw.line(points, fill=1, width=self.width))


@dataclass(frozen=True)
class DotsArea:
    """Discs about points."""

    points: Points
    width: int

    def patch(self, size: Size) -> Patch:
        def draw_dots(draw: ImageDraw.ImageDraw, points: Corners) -> None:
            low, high = (self.width - 1) // 2, self.width // 2
            for x, y in points:
                box = x - low, y - low, x + high, y + high
                draw.rectangle(box, fill=1) if self.width < 3 else draw.ellipse(box, fill=1)

        return _drawn(self.points, size, self.width, draw_dots)


@dataclass(frozen=True)
class BitmapArea:
    """Pixels as they are."""

    left: int
    top: int
    mask: np.ndarray

    def patch(self, size: Size) -> Patch:
        return Patch(self.left, self.top, self.mask)


@dataclass(frozen=True)
class DrawnShape:
    """An annotated shape."""

    name: str
    """Of its class."""
    area: Area
    where: str
    """What messages call it, such as "a.json, shape 3 (car)"."""
    group: str | None = None
    """Shapes of one class and group are one instance."""


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float = 0) -> PolygonArea:
    """An ellipse, turned clockwise."""
    n = min(720, max(16, math.ceil(4 * max(radii))))
    angles = [2 * math.pi * k / n for k in range(n)]
    return turned([(center[0] + radii[0] * math.cos(a), center[1] + radii[1] * math.sin(a)) for a in angles], degrees)


def turned(points: Points, degrees: float) -> PolygonArea:
    """A polygon that is turned clockwise about the centre of its bounding box."""
    xs, ys = zip(*points, strict=True)
    x0, y0 = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return PolygonArea(
        [(x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos) for x, y in points]
    )


def decode_runs(runs: Sequence[int], width: int, height: int) -> np.ndarray:
    """A mask [height, width] from run lengths by rows, which begin with the pixels outside of the mask.

    Raises:
        ValueError: the runs do not have as many pixels as the mask.
    """
    # As Python's integers, since a sum of 64 bits could wrap round to the right number.
    if width < 1 or height < 1 or min(runs, default=0) < 0 or sum(runs) != width * height:
        raise ValueError(f"its runs have {sum(runs)} pixels, not {width}x{height}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64)).reshape(height, width)


def require_near(where: str, numbers: Iterable[float]) -> None:
    """Raise DataError for coordinates that are not finite, or far outside of every image."""
    for number in numbers:
        if not abs(number) <= _FAR:
            raise DataError(
                f"{where} has the coordinate {number:g}, which no image reaches: correct or remove the shape"
            )


def most_instances(images: Iterable[Sequence[DrawnShape]]) -> int:
    """The most shapes that one class has in one image."""
    return max((max(Counter(shape.name for shape in shapes).values()) for shapes in images if shapes), default=0)


def draw_maps(
    shapes: Sequence[DrawnShape], labels: Sequence[int], size: Size, stuff: frozenset[int], divisor: int
) -> SampleMaps:
    """Draw shapes one after another, so that later ones cover earlier ones.

    Args:
        shapes: In the order of drawing.
        labels: The label of each.
        size: (width, height) of the image.
        stuff: Labels without instances.
        divisor: Of instance ids.

    Returns:
        A label map, which is 0 where there is no shape, and an instance map: label * divisor + k for the k-th instance
        of a class, or the label itself for stuff.

    Raises:
        DataError: a shape lies outside of the image, or has no pixels.
    """
    label_map = np.zeros((size[1], size[0]), np.int32)
    ids = np.zeros_like(label_map)
    numbers: dict[tuple[int, object], int] = {}
    counts = Counter[int]()
    for index, (shape, label) in enumerate(zip(shapes, labels, strict=True)):
        patch = shape.area.patch(size).inside(size)
        if not patch.mask.any():
            raise DataError(
                f"{shape.where} covers no pixel of its image of {size[0]}x{size[1]}: correct or remove the shape"
            )
        key = label, index if shape.group is None else shape.group
        if key not in numbers:
            numbers[key] = counts[label]
            counts[label] += 1
        window = np.s_[patch.top : patch.top + patch.mask.shape[0], patch.left : patch.left + patch.mask.shape[1]]
        label_map[window][patch.mask] = label
        ids[window][patch.mask] = label if label in stuff else label * divisor + numbers[key]
    return SampleMaps(label_map, ids)


def _drawn(points: Points, size: Size, width: int, draw: Callable[[ImageDraw.ImageDraw, Corners], None]) -> Patch:
    """Draw into a mask just as large as the shape, or as its part near the image.

    Pillow rounds negative coordinates differently, so what lies a little above or left of the image is drawn as well.
    """
    whole = [(math.floor(x + _ROUNDING), math.floor(y + _ROUNDING)) for x, y in points]
    xs, ys = zip(*whole, strict=True)
    left, top = max(-size[0], min(xs) - width), max(-size[1], min(ys) - width)
    right, bottom = min(size[0], max(xs) + width + 1), min(size[1], max(ys) + width + 1)
    if right <= left or bottom <= top:
        return Patch(0, 0, np.zeros((0, 0), bool))
    canvas = Image.new("L", (right - left, bottom - top))
    draw(ImageDraw.Draw(canvas), [(x - left, y - top) for x, y in whole])
    return Patch(left, top, np.asarray(canvas) > 0)
