"""One street scene: label map, instance map and photo, drawn from (seed, split, index) alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hdgan.config.bounds import Count, Seed
from hdgan.config.serialization import check_value
from hdgan.data.config import SceneSide
from hdgan.scenes.buildings import paint_buildings
from hdgan.scenes.canvas import Canvas
from hdgan.scenes.cars import paint_car
from hdgan.scenes.ground import paint_ground, paint_sky
from hdgan.scenes.layout import Car, Person, Pole, SceneLayout, Thing, Tree, lay_out
from hdgan.scenes.light import GroundShade, Light
from hdgan.scenes.people import paint_person, paint_pole
from hdgan.scenes.styles import (
    BUILDING,
    CAR,
    MARKING,
    PAVEMENT,
    PERSON,
    POLE,
    ROAD,
    SKY,
    SPEC,
    TREE,
    Look,
    draw_look,
)
from hdgan.scenes.trees import paint_tree

DIVISOR = 1000
"""Class of an instance id: id // DIVISOR where id >= DIVISOR, else id itself (Cityscapes' rule)."""
_PAINTERS: dict[type[Thing], tuple[int, Callable[..., None]]] = {
    Car: (CAR, paint_car),
    Tree: (TREE, paint_tree),
    Person: (PERSON, paint_person),
    Pole: (POLE, paint_pole),
}
_MOST_SUBSAMPLED = 5_000_000  # largest image, in pixels, whose pixels are averages of 2 x 2 samples


@dataclass(frozen=True)
class Instance:
    """The ground truth of one instance; a surface such as the road is one instance."""

    id: int
    label: int
    style: str
    colour: tuple[int, int, int]
    """Reflectance in 8-bit sRGB, before light falls on it."""
    texture: str
    area: int
    """Pixels in the instance map."""

    @property
    def name(self) -> str:
        """Name of the class."""
        return SPEC.classes[self.label]


@dataclass(frozen=True)
class Scene:
    """A rendered scene; `ids` holds class ids for surfaces and class * 1000 + k for objects."""

    label: np.ndarray  # [H, W] uint8
    ids: np.ndarray  # [H, W] int32
    photo: np.ndarray  # [H, W, 3] uint8
    instances: tuple[Instance, ...]
    """In the order of their ids; those hidden or smaller than a pixel are left out."""


def render_scene(seed: int, split: str, index: int, width: int, height: int) -> Scene:
    """Draw scene `index` of `split`. The same scene at another size shows the same street with more or less detail.

    Args:
        seed: Any integer from 0.
        split: For example "train" or "test"; scenes of different splits have nothing in common.
        index: Number of the scene in its split, from 0.
        width: Pixels, 16 to 4096.
        height: Pixels, 16 to 4096.

    Raises:
        ConfigError: a size, seed or index out of range.
    """
    for name, kind, value in (
        ("width", SceneSide, width), ("height", SceneSide, height), ("seed", Seed, seed), ("index", Count, index)
    ):  # fmt: skip
        check_value(kind, value, name)
    geometry, looks, light_rng, sensor = (
        np.random.default_rng((seed, zlib.crc32(split.encode()), index, stream)) for stream in range(4)
    )
    layout = lay_out(geometry)
    surfaces = {label: draw_look(looks, label) for label in (SKY, ROAD, PAVEMENT, MARKING)}
    light = Light(layout, surfaces[SKY], light_rng)
    factor = 2 if width * height <= _MOST_SUBSAMPLED else 1
    canvas = Canvas(layout.camera, width * factor, height * factor)
    known = {label: (label, look) for label, look in surfaces.items()}
    known.update(_paint_objects(canvas, layout, light, surfaces, looks))
    ids = _reduce_ids(canvas.ids.reshape(canvas.height, canvas.width), factor)
    label = np.where(ids >= DIVISOR, ids // DIVISOR, ids).astype(np.uint8)
    photo = _develop(canvas, factor, sensor)
    return Scene(label, ids, photo, _instances(ids, known))


def _paint_objects(
    canvas: Canvas, layout: SceneLayout, light: Light, surfaces: dict[int, Look], rng: np.random.Generator
) -> dict[int, tuple[int, Look]]:
    """Paint the whole canvas; returns label and look of every object's id."""
    known: dict[int, tuple[int, Look]] = {}
    counts = dict.fromkeys((BUILDING, TREE, CAR, PERSON, POLE), 0)

    def enter(label: int) -> tuple[int, Look]:
        id = label * DIVISOR + counts[label]
        counts[label] += 1
        known[id] = (label, draw_look(rng, label))
        return id, known[id][1]

    shade = GroundShade(canvas, light)
    for thing in layout.things:
        shade.add(thing)
        label, paint = _PAINTERS[type(thing)]
        paint(canvas, light, thing, *enter(label))
    paint_buildings(
        canvas, light, [(building, *enter(BUILDING)) for building in layout.buildings if building.far > 0.8]
    )
    paint_sky(canvas, light, surfaces[SKY])
    paint_ground(canvas, layout, light, shade, surfaces)
    return known


def _reduce_ids(ids: np.ndarray, factor: int) -> np.ndarray:
    """The id that most of a pixel's samples [H * factor, W * factor] show, int32 [H, W]; objects win ties."""
    if factor == 1:
        return ids
    # Sorted, a <= b <= c <= d: if c == d, they are a pair of the largest id; any other pair includes b.
    _, b, c, d = np.sort([ids[i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
    return np.where(c == d, c, b)


def _develop(canvas: Canvas, factor: int, rng: np.random.Generator) -> np.ndarray:
    """Average samples, apply a film curve, a little vignette and sensor noise; uint8 [H, W, 3]."""
    height, width = canvas.height // factor, canvas.width // factor
    samples = canvas.colour.reshape(3, canvas.height, canvas.width)
    light = sum(samples[:, i::factor, j::factor] for i in range(factor) for j in range(factor)) * (1 / factor**2)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = np.maximum(light, 0) * (0.92 * (1 - 0.12 * (x * x + y * y) * 0.5))
    film = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    values = np.power(np.clip(film, 0, 1), np.float32(1 / 2.2)) * 255  # [3, H, W]
    values += rng.standard_normal((height, width), dtype=np.float32) * 1.6
    values += rng.standard_normal(values.shape, dtype=np.float32) * 1.0
    return np.ascontiguousarray(np.clip(values + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _instances(ids: np.ndarray, known: dict[int, tuple[int, Look]]) -> tuple[Instance, ...]:
    found = []
    for id, area in zip(*np.unique(ids, return_counts=True), strict=True):
        label, look = known[int(id)]
        found.append(Instance(int(id), label, look.style.name, look.colour, look.style.texture, int(area)))
    return tuple(found)
