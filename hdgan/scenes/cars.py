"""Cars: faceted bodies in three dimensions, drawn facet by facet from far to near."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from hdgan.scenes.canvas import Canvas, Point, Stencil
from hdgan.scenes.car_shapes import BELT, OUTLINES, ROOF, WHEELS, Outline, clip, half_width, plan_width, smooth, wheel
from hdgan.scenes.layout import Car
from hdgan.scenes.light import Light
from hdgan.scenes.styles import Look, linear

Facet = tuple[float, list[Point], np.ndarray, bool]  # depth, world points, linear colour [3], whether a pane
# Parts of a strip across the car: from, to, and how far the surface bends to the right.
_WHOLE = ((-1.0, 1.0, 0.0),)
_ROUND = (
    *((-1.0, -0.96, -1.6), (-0.96, -0.9, -0.9), (-0.9, -0.8, -0.4), (-0.8, 0.8, 0.0)),
    *((0.8, 0.9, 0.4), (0.9, 0.96, 0.9), (0.96, 1.0, 1.6)),
)
_BENT = ((-1.0, -0.8, -0.7), (-0.8, 0.8, 0.0), (0.8, 1.0, 0.7))
_DARK = np.array([0.011, 0.011, 0.012], np.float32)


def paint_car(canvas: Canvas, light: Light, car: Car, id: int, look: Look) -> None:
    """Paint a car in the pixels that are still free."""
    body = _Body(canvas, light, car, look)
    if body.stencil.hidden:
        return
    _underside(body)
    facets = [*_top(body), *_sides(body)]
    for _, points, rgb, glass in sorted(facets, key=lambda facet: -facet[0]):
        body.add(points, rgb, glass)
    for side in (-1, 1):
        if body.sees(body.point(0.5, side, 0.4), body.sideways(side)):
            _side_details(body, side)
    for end in (0, 1):
        if body.sees(body.point(end, 0, 0.4), body.forward if end else body.backward):
            _end_details(body, bool(end))
    parts = body.stencil.parts()
    pixels, row, column = body.stencil.seen(parts)
    if not len(row):
        return
    rgb = np.stack(body.colours, axis=1)[:, parts[row, column]]  # [3, N]
    height = np.clip(canvas.camera.y - car.z * pixels.b, 0, 2)
    rgb *= 0.55 + 0.45 * np.minimum(height * 1.7, 1)
    # Panes reflect more sky the more they lean back; flanks reflect a band of it along the shoulder.
    share = height * (1 / car.height)
    glass = np.array(body.panes)[parts[row, column]]
    shine = np.where(glass, 0.2 * np.clip(share * 2.6 - 1.7, 0, 1), 0.05 * np.exp(-(((share - 0.6) * 18) ** 2)))
    rgb += body.sky[:, None] * shine.astype(np.float32)
    canvas.paint(pixels, id, light.mist(rgb, car.z))


class _Body:
    """One car being drawn: its frame in the world, and the colours of the parts drawn so far.

    Points of the body are given as shares: of the length from the tail, of the half width at that height from the
    middle to the right, and of the height.
    """

    def __init__(self, canvas: Canvas, light: Light, car: Car, look: Look) -> None:
        self.car, self.light, self._canvas = car, light, canvas
        sine, cosine = math.sin(car.heading), math.cos(car.heading)
        self.forward: Point = (sine, 0.0, cosine)
        self.backward: Point = (-sine, 0.0, -cosine)
        self._eye = (canvas.camera.x, canvas.camera.y, 0.0)
        self.paint = linear(look.colour)
        self._gloss = 1.6 if look.style.texture == "metallic" else 1.0
        self.lit = light.sunlit_at(car.x, car.height * 0.7, car.z)
        self.sky = light.horizon_rgb[:, 0] * (0.5 + 0.5 * self.lit)
        self.white = light.ambient_rgb[:, 0] * 0.6 + light.sun_rgb[:, 0] * (0.2 * self.lit)
        """Linear colour of a white part at the ends of the body."""
        pixels = canvas.unit * car.height / car.z
        self.small, self.fine = pixels < 45, pixels > 130
        """Whether treads are too small to see; whether rounded edges and spokes are large enough."""
        self.colours, self.panes = [np.zeros(3, np.float32)], [False]
        reach = [
            (i * car.length * 0.52, j * (car.width / 2 + 0.2), y)
            for i in (-1, 1)
            for j in (-1, 1)
            for y in (0, car.height)
        ]
        self.stencil = Stencil(canvas, [self.world(*corner) for corner in reach])

    def sideways(self, side: int) -> Point:
        """Unit vector to the right (1) or left (-1) of the car."""
        return side * self.forward[2], 0.0, -side * self.forward[0]

    def world(self, along: float, side: float, up: float) -> Point:
        """Metres ahead of and right of the centre, and above the ground, to a world point."""
        fx, _, fz = self.forward
        return self.car.x + along * fx + side * fz, up, self.car.z + along * fz - side * fx

    def point(self, along: float, side: float, up: float) -> Point:
        """World point of shares of length, half width and height."""
        car = self.car
        wide = half_width(car.body, up) * plan_width(along) * car.width / 2
        return self.world((along - 0.5) * car.length, side * wide, up * car.height)

    def sees(self, point: Point, normal: Sequence[float]) -> bool:
        """Whether the camera sees the outer face at a world point with outward `normal`."""
        return sum((e - p) * n for e, p, n in zip(self._eye, point, normal, strict=True)) > 0

    def add(self, points: Iterable[Point], rgb: np.ndarray, glass: bool = False) -> None:
        """Draw world points as a polygon of linear colour `rgb` [3]."""
        self.colours.append(rgb.astype(np.float32))
        self.panes.append(glass)
        self.stencil.polygon([self._canvas.project(point) for point in points], len(self.colours) - 1)

    def facet(self, points: list[Point], normal: Sequence[float], glass: bool = False) -> list[Facet]:
        """A polygon of the body's surface with outward `normal`; none where it faces away from the camera."""
        if not self.sees(points[0], normal):
            return []
        length = math.sqrt(sum(n * n for n in normal))
        unit = (normal[0] / length, normal[1] / length, normal[2] / length)
        rgb = self.glass(unit) if glass else self.painted(unit)
        return [(sum(point[2] for point in points) / len(points), points, rgb, glass)]

    def glass(self, normal: Point) -> np.ndarray:
        """Linear colour [3] of a window: dark apart from the sky that it reflects."""
        return _DARK * 1.6 + self.sky * (0.06 + 0.34 * max(normal[1], 0.0) ** 1.5)

    def painted(self, normal: Point) -> np.ndarray:
        """Linear colour [3] of painted metal: diffuse light, the reflected sky, and a highlight of the sun."""
        light = self.light
        sun = light.facing(normal) * self.lit
        diffuse = self.paint * (light.sun_rgb[:, 0] * sun + light.ambient_rgb[:, 0] * (0.62 + 0.34 * normal[1]))
        view = [e - p for e, p in zip(self._eye, (self.car.x, self.car.height, self.car.z), strict=True)]
        distance = math.sqrt(sum(v * v for v in view))
        half = [v / distance + s for v, s in zip(view, light.sun, strict=True)]
        cosine = sum(n * h for n, h in zip(normal, half, strict=True)) / math.sqrt(sum(h * h for h in half))
        spark = max(cosine, 0.0) ** 24 * self.lit
        mirrored = self.sky * ((0.025 + 0.13 * max(normal[1], 0.0) ** 2) * self._gloss)
        return diffuse + mirrored + light.sun_rgb[:, 0] * (0.28 * spark * self._gloss)


def _top(body: _Body) -> list[Facet]:
    """Strips across the car from bumper to bumper; their edges bend towards the sides."""
    facets: list[Facet] = []
    outline = OUTLINES[body.car.body]
    right = body.sideways(1)
    rounded = smooth(outline) if body.fine else outline
    for start, stop in itertools.pairwise(rounded):
        normal = _upward(body, start, stop)
        for left, far, bend in _WHOLE if body.small else _ROUND if body.fine else _BENT:
            bent = [n + bend * r for n, r in zip(normal, right, strict=True)]
            facets += body.facet(_strip(body, start, stop, left, far), bent)
    for index in (BELT[0], ROOF[1]):
        start, stop = outline[index], outline[index + 1]
        low = [a + (b - a) * 0.1 for a, b in zip(start, stop, strict=True)]
        high = [a + (b - a) * 0.88 for a, b in zip(start, stop, strict=True)]
        pane = body.facet(_strip(body, low, high, -0.87, 0.87), _upward(body, start, stop), glass=True)
        # A pane lies on its strips: it must come after all of them.
        facets += [(facet[0] - 0.4, *facet[1:]) for facet in pane]
    return facets


def _upward(body: _Body, start: Sequence[float], stop: Sequence[float]) -> Point:
    """Outward unit normal of the strip between two points of an outline."""
    along, up = (stop[0] - start[0]) * body.car.length, (stop[1] - start[1]) * body.car.height
    length = math.hypot(along, up)
    fx, _, fz = body.forward
    return -up * fx / length, along / length, -up * fz / length


def _strip(body: _Body, start: Sequence[float], stop: Sequence[float], left: float, right: float) -> list[Point]:
    places = ((start, left), (stop, left), (stop, right), (start, right))
    return [body.point(place[0], side, place[1]) for place, side in places]


def _sides(body: _Body) -> list[Facet]:
    """Doors and wings below the windows in two bands, and the window frames above."""
    facets: list[Facet] = []
    outline = OUTLINES[body.car.body]
    whole = outline
    tail, top, nose = outline[: BELT[0] + 1], outline[BELT[0] : BELT[1] + 1], outline[BELT[1] :]
    if body.fine:
        whole, tail, top, nose = (smooth(part) for part in (whole, tail, top, nose))
    lower = [*tail, *_between(tail[-1], nose[0]), *nose]
    crease = 0.47
    bands = (
        ([(x, min(y, crease)) for x, y in lower] + _between((0.98, 0.17), (0.02, 0.17)), -0.18),
        ([(x, max(y, crease)) for x, y in lower] + _between((1.0, crease), (0.0, crease)), 0.32),
        (top + _between(nose[0], tail[-1]), 0.3),
    )
    for side in (-1, 1):
        out = body.sideways(side)
        # The whole flank lies behind its bands, so that no gap is left where their edges differ by a hair.
        for band, tilt, behind in ((whole, 0.1, 1.0), *((*band, 0.0) for band in bands)):
            found = body.facet([body.point(x, side, y) for x, y in band], (out[0], tilt, out[2]))
            facets += [(facet[0] + behind, *facet[1:]) for facet in found]
    return facets


def _between(start: tuple[float, float], stop: tuple[float, float]) -> Outline:
    """Points on a straight line along a side, which is curved seen from above."""
    steps = (0.06, 0.13, 0.25, 0.5, 0.75, 0.87, 0.94)
    return [(start[0] + (stop[0] - start[0]) * t, start[1] + (stop[1] - start[1]) * t) for t in steps]


def _underside(body: _Body) -> None:
    """Tyres as seen between body and road, and the dark below the car."""
    car = body.car
    for centre in WHEELS:
        for side in (-1, 1):
            inner, outer = (
                [body.world(*place) for place in wheel(car, centre, side * inset, 1.0)] for inset in (0.72, 0.98)
            )
            for start in range(0, 0 if body.small else len(inner), 4):
                stop = (start + 4) % len(inner)
                body.add((inner[start], outer[start], outer[stop], inner[stop]), _DARK)
            body.add(outer, _DARK)
    corners = ((-1, -1), (-1, 1), (1, 1), (1, -1))
    body.add(
        [body.world(i * car.length * 0.4, j * car.width * 0.46, 0.2 * car.height) for i, j in corners], _DARK * 0.5
    )


def _side_details(body: _Body, side: int) -> None:
    """Windows, sill and wheels on one side."""
    car = body.car
    upper = OUTLINES[car.body][BELT[0] : BELT[1] + 1]
    middle = [0.5 * (min(axis) + max(axis)) for axis in zip(*upper, strict=True)]
    panes = [(middle[0] + (x - middle[0]) * 0.86, middle[1] + (y - middle[1]) * 0.74) for x, y in upper]
    out = body.sideways(side)
    glass = body.glass((out[0] * 0.97, 0.25, out[2] * 0.97))
    # A van has windows for its driver only.
    splits = ((0.53, 1.0),) if car.body == "van" else ((0.0, 0.31), (0.31, 0.515), (0.515, 1.0))
    for rear, front in splits:
        pane = clip(panes, rear + 0.012, front - 0.012)
        if len(pane) > 2:
            body.add([body.point(x, side * 1.005, y) for x, y in pane], glass, glass=True)

    sill = ((0.06, 0.17), (0.94, 0.17), (0.94, 0.225), (0.06, 0.225))
    body.add([body.point(x, side * 1.004, y) for x, y in sill], _DARK)
    rim = body.light.ambient_rgb[:, 0] * 0.32 + body.light.sun_rgb[:, 0] * (0.12 * body.lit)
    for centre in WHEELS:
        for share, rgb in ((1.22, _DARK * 0.4), (1.0, _DARK), (0.66, rim), (0.56, rim * 0.55)):
            body.add([body.world(*place) for place in wheel(car, centre, side, share, 40 if body.fine else 16)], rgb)
        if body.fine:
            hub = wheel(car, centre, side * 1.005, 0.6)
            axle = body.world(centre * car.length, side * car.width / 2, 0.33)
            for spoke in range(0, 16, 4):
                body.add((axle, body.world(*hub[spoke]), body.world(*hub[spoke + 1])), rim * 1.25)


def _end_details(body: _Body, front: bool) -> None:
    """Lights, number plate, grille and bumper on the tail or the nose."""
    white, tall = body.white, body.car.body == "van"

    def quad(sides: tuple[float, float], low: float, high: float, rgb: np.ndarray) -> None:
        # The nose leans back above its bumper; what is mounted there follows.
        deep = 1.0 - 0.012 * max(0.0, (high - 0.3) * 4) if front else -0.0004
        corners = ((sides[0], low), (sides[1], low), (sides[1], high), (sides[0], high))
        body.add([body.point(deep, x, y) for x, y in corners], rgb)

    quad((-0.93, 0.93), 0.15, 0.25, _DARK)
    if front:
        quad((-0.5, 0.5), 0.34, 0.46, _DARK)
        quad((-0.5, 0.5), 0.395, 0.405, white * 0.5)
    else:
        quad((-0.97, 0.97), 0.262, 0.27, body.paint * 0.25)
    low, high = (0.38, 0.56) if tall else (0.47, 0.59)
    for side in (-1, 1):
        if front:
            quad((side * 0.6, side * 0.97), 0.43, 0.53, _DARK * 4)
            quad((side * 0.65, side * 0.92), 0.445, 0.515, white * 1.9 + 0.25)
        else:
            quad((side * (0.8 if tall else 0.6), side * 0.97), low, high, np.array([0.5, 0.012, 0.01]))
            quad((side * 0.84, side * 0.94), low + 0.03, high - 0.03, np.array([1.1, 0.09, 0.05]))
    bottom = 0.29 if front else 0.35
    quad((-0.3, 0.3), bottom, bottom + 0.075, white * 1.2)
