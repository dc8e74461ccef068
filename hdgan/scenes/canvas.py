"""The unfinished image: the instance that every pixel shows, its colour in linear light, and the camera's rays.

Things are painted from near to far and never painted over, so every pixel is shaded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hdgan.scenes.layout import Camera

EMPTY = -1
Point = tuple[float, float, float]  # X, Y, Z in the world, metres
Place = tuple[float, float]  # x, y on the canvas, pixels
_DRAWN_HEIGHT = 110


@dataclass(frozen=True)
class Pixels:
    """N free pixels: flat index, and the ray (a, b) with X = x + Z a, Y = y - Z b."""

    index: np.ndarray  # [N] int64
    a: np.ndarray  # [N] float32
    b: np.ndarray  # [N] float32

    def __getitem__(self, mask: np.ndarray) -> Pixels:
        return Pixels(self.index[mask], self.a[mask], self.b[mask])


class Canvas:
    """Ids and linear colours of width x height pixels, flat in row order."""

    def __init__(self, camera: Camera, width: int, height: int) -> None:
        half = width / 2
        self.camera, self.width, self.height = camera, width, height
        self.unit = half * camera.focal
        """Pixels spanned by one metre at a depth of one metre."""
        self.a = (((np.arange(width) + 0.5) / half - 1 - camera.shift) / camera.focal).astype(np.float32)  # [W]
        self.b = ((np.arange(height) + 0.5 - camera.horizon * height) / self.unit).astype(np.float32)  # [H]
        self._centre = ((1 + camera.shift) * half, camera.horizon * height)
        self.ids = np.full(height * width, EMPTY, np.int32)  # [H * W]
        self.colour = np.zeros((3, height * width), np.float32)  # [3, H * W]

    def project(self, point: Point) -> Place:
        """World point to pixel coordinates."""
        x, y, z = point
        scale = self.unit / max(z, 0.3)
        return (x - self.camera.x) * scale + self._centre[0], (self.camera.y - y) * scale + self._centre[1]

    def box(self, points: Iterable[Point]) -> tuple[slice, slice]:
        """Rows and columns that cover world points, clipped to the canvas."""
        xs, ys = zip(*map(self.project, points), strict=True)
        left, right = (max(0, min(int(x), self.width)) for x in (min(xs), max(xs) + 2))
        top, bottom = (max(0, min(int(y), self.height)) for y in (min(ys), max(ys) + 2))
        return slice(top, bottom), slice(left, right)

    def empty(self, rows: slice, columns: slice) -> np.ndarray:
        """Which pixels of a box are free, bool [rows, columns]."""
        return self.ids.reshape(self.height, self.width)[rows, columns] == EMPTY

    def free(self, rows: slice, columns: slice, mask: np.ndarray | None = None) -> Pixels:
        """Free pixels of a box, or only those where `mask` [rows, columns] is true."""
        empty = self.empty(rows, columns)
        if mask is not None:
            empty &= mask
        y, x = np.nonzero(empty)
        y += rows.start
        x += columns.start
        return Pixels(y * self.width + x, self.a[x], self.b[y])

    def paint(self, pixels: Pixels, ids: int | np.ndarray, rgb: np.ndarray) -> None:
        """Take `pixels` for instance `ids` (one, or [N]) with linear colours `rgb` [3, N]."""
        self.ids[pixels.index] = ids
        for channel in range(3):
            self.colour[channel][pixels.index] = rgb[channel]


class Stencil:
    """A drawing of numbered parts over a box of the canvas, whose edges are even also where it has few pixels."""

    def __init__(self, canvas: Canvas, points: Iterable[Point]) -> None:
        """Cover the world `points`, which should bound what will be drawn."""
        self.rows, self.columns = canvas.box(points)
        self._canvas = canvas
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        self.hidden = height <= 0 or width <= 0 or not canvas.empty(self.rows, self.columns).any()
        """Whether the box has no free pixels."""
        # Pillow rounds corners to pixels: small things are drawn larger and thinned out.
        self._zoom = max(1, min(8, -(-_DRAWN_HEIGHT // max(height, 1))))
        self._image = Image.new("I", (max(width, 1) * self._zoom, max(height, 1) * self._zoom))
        self._draw = ImageDraw.Draw(self._image)

    def _local(self, place: Place) -> Place:
        return (place[0] - self.columns.start) * self._zoom, (place[1] - self.rows.start) * self._zoom

    def polygon(self, places: Iterable[Place], part: int) -> None:
        """Fill a polygon of canvas places."""
        self._draw.polygon([self._local(place) for place in places], fill=part)

    def limb(self, places: Iterable[Place], radius: float, part: int) -> None:
        """Draw a line through canvas places with round joints and ends; `radius` in pixels."""
        local = [self._local(place) for place in places]
        reach = max(radius * self._zoom, 0.5)
        self._draw.line(local, fill=part, width=max(1, round(2 * reach)))
        for x, y in local:
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=part)

    def ellipse(self, centre: Place, rx: float, ry: float, part: int) -> None:
        """Fill an upright ellipse around a canvas place; radii in pixels."""
        x, y = self._local(centre)
        rx, ry = max(rx * self._zoom, 0.5), max(ry * self._zoom, 0.5)
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=part)

    def parts(self) -> np.ndarray:
        """The drawing at the canvas's resolution, int32 [rows, columns]; 0 where nothing was drawn."""
        offset = self._zoom // 2
        return np.asarray(self._image)[offset :: self._zoom, offset :: self._zoom]

    def seen(self, parts: np.ndarray) -> tuple[Pixels, np.ndarray, np.ndarray]:
        """Free pixels that `parts` [rows, columns] covers, and their rows and columns in it."""
        pixels = self._canvas.free(self.rows, self.columns, parts > 0)
        row, column = np.divmod(pixels.index, self._canvas.width)
        return pixels, row - self.rows.start, column - self.columns.start
