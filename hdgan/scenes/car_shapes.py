"""Shapes of car bodies, as shares of length, width and height, and small geometry on them."""

from __future__ import annotations

import itertools
import math
from functools import cache

from hdgan.scenes.layout import Car

Outline = list[tuple[float, float]]  # share of the length from the tail, share of the height

# Over the car from the rear bumper to the front bumper. Points of all bodies correspond: BELT names those where the
# windows of the tail and the nose meet the body, ROOF those where they meet the roof.
OUTLINES: dict[str, Outline] = {
    "saloon": [
        (0.025, 0.17), (0.0, 0.26), (0.0, 0.5), (0.02, 0.63), (0.15, 0.665), (0.285, 0.945), (0.4, 1.0),
        (0.525, 0.98), (0.7, 0.65), (0.93, 0.57), (0.985, 0.47), (1.0, 0.3), (0.975, 0.17),
    ],
    "hatchback": [
        (0.03, 0.18), (0.0, 0.28), (0.0, 0.52), (0.015, 0.6), (0.035, 0.65), (0.15, 0.95), (0.32, 1.0),
        (0.5, 0.98), (0.695, 0.65), (0.92, 0.57), (0.98, 0.47), (1.0, 0.3), (0.975, 0.18),
    ],
    "wagon": [
        (0.025, 0.19), (0.0, 0.28), (0.0, 0.5), (0.01, 0.57), (0.025, 0.625), (0.09, 0.955), (0.3, 1.0),
        (0.53, 0.98), (0.71, 0.63), (0.93, 0.58), (0.985, 0.48), (1.0, 0.3), (0.975, 0.19),
    ],
    "van": [
        (0.02, 0.14), (0.0, 0.2), (0.0, 0.42), (0.005, 0.48), (0.012, 0.54), (0.035, 0.96), (0.3, 1.0),
        (0.655, 0.97), (0.84, 0.56), (0.95, 0.49), (0.99, 0.39), (1.0, 0.22), (0.98, 0.14),
    ],
}  # fmt: skip
BELT = (4, 8)
ROOF = (5, 7)
WHEELS = (-0.3, 0.3)
"""Axles, as shares of the length from the centre."""
_WIDTHS = ((0.0, 0.9), (0.17, 0.95), (0.3, 1.0), (0.5, 1.0), (0.66, 0.95))


@cache
def half_width(body: str, up: float) -> float:
    """Half width of a body at a share of its height, as a share of its greatest half width."""
    stations = (*_WIDTHS, (1.0, 0.88 if body == "van" else 0.74))
    for (low, narrow), (high, wide) in itertools.pairwise(stations):
        if up <= high:
            return narrow + (wide - narrow) * (up - low) / (high - low)
    return stations[-1][1]


def plan_width(along: float) -> float:
    """How much of its half width a body keeps at a share of its length: corners are rounded seen from above."""
    return 1 - 0.13 * abs(2 * along - 1) ** 7


def smooth(outline: Outline) -> Outline:
    """Cut the corners of an open outline twice, which rounds them (Chaikin's scheme)."""
    for _ in range(2):
        cut = [outline[0]]
        for (x0, y0), (x1, y1) in itertools.pairwise(outline):
            cut += [(0.8 * x0 + 0.2 * x1, 0.8 * y0 + 0.2 * y1), (0.2 * x0 + 0.8 * x1, 0.2 * y0 + 0.8 * y1)]
        outline = [*cut, outline[-1]]
    return outline


def wheel(car: Car, centre: float, side: float, share: float, count: int = 16) -> list[tuple[float, float, float]]:
    """Points (metres ahead, right, up) on a circle of `share` of a wheel's radius."""
    radius = share * (0.356 if car.height > 1.6 else 0.33)
    angles = [2 * math.pi * step / count for step in range(count)]
    along = centre * car.length
    return [(along + radius * math.cos(a), side * car.width / 2, 0.33 + radius * math.sin(a)) for a in angles]


def clip(polygon: Outline, low: float, high: float) -> Outline:
    """Part of a convex polygon between two shares of the length."""
    for bound, sign in ((low, 1.0), (high, -1.0)):
        kept: Outline = []
        for start, stop in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
            inside, ahead = sign * (start[0] - bound) >= 0, sign * (stop[0] - bound) >= 0
            if inside:
                kept.append(start)
            if inside != ahead:
                share = (bound - start[0]) / (stop[0] - start[0])
                kept.append((bound, start[1] + (stop[1] - start[1]) * share))
        polygon = kept
    return polygon
