"""Classes of the street scenes and the appearance styles that their instances are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hdgan.data.spec import DatasetSpec

RGB = tuple[int, int, int]

_COLOURS: dict[str, RGB] = {
    "sky": (126, 182, 224),
    "road": (92, 84, 110),
    "pavement": (214, 178, 196),
    "building": (146, 122, 104),
    "tree": (96, 150, 74),
    "car": (32, 74, 168),
    "person": (214, 56, 66),
    "pole": (238, 196, 88),
    "marking": (240, 240, 236),
}
SPEC = DatasetSpec(tuple(_COLOURS), np.array(list(_COLOURS.values()), np.uint8))
"""The classes of the street scenes."""
SKY, ROAD, PAVEMENT, BUILDING, TREE, CAR, PERSON, POLE, MARKING = range(SPEC.n_labels)


@dataclass(frozen=True)
class Appearance:
    """One discrete style of a class; colours are 8-bit sRGB reflectances, before lighting."""

    name: str
    texture: str
    colour: RGB
    """The main colour."""
    accent: RGB = (128, 128, 128)
    """Second colour: zenith against horizon, trousers against coat, the other leaves, the roof."""
    trim: RGB = (200, 196, 188)
    """Small parts: window frames, joints, trunks."""


STYLES: tuple[tuple[Appearance, ...], ...] = (
    (
        Appearance("morning", "clear", (98, 158, 222), (216, 228, 236), (255, 255, 255)),
        Appearance("afternoon", "cumulus", (66, 130, 212), (190, 214, 234), (255, 255, 255)),
        Appearance("overcast", "stratus", (150, 158, 168), (206, 209, 211), (226, 228, 230)),
        Appearance("sunset", "cirrus", (104, 112, 168), (250, 186, 122), (255, 196, 160)),
    ),
    (
        Appearance("fresh-asphalt", "asphalt", (70, 72, 77)),
        Appearance("worn-asphalt", "asphalt", (144, 139, 130)),
        Appearance("cobblestone", "cobblestone", (110, 114, 124)),
        Appearance("clinker", "brick", (122, 86, 74)),
    ),
    (
        Appearance("grey-slabs", "slabs", (158, 158, 156)),
        Appearance("sandstone", "slabs", (204, 178, 138)),
        Appearance("red-pavers", "pavers", (168, 102, 84)),
        Appearance("basalt", "pavers", (86, 88, 94)),
    ),
    (
        Appearance("red-brick", "brick", (154, 82, 66), (74, 70, 74), (226, 216, 200)),
        Appearance("cream-plaster", "plaster", (232, 218, 188), (158, 84, 62), (250, 246, 236)),
        Appearance("ochre-plaster", "plaster", (210, 158, 86), (140, 76, 58), (240, 228, 204)),
        Appearance("grey-stone", "stone", (146, 148, 150), (82, 86, 94), (186, 186, 184)),
        Appearance("sage-plaster", "plaster", (120, 158, 130), (96, 74, 66), (238, 236, 224)),
        Appearance("glass", "glass", (94, 110, 122), (66, 74, 84), (52, 60, 70)),
    ),
    (
        Appearance("summer", "foliage", (74, 112, 46), (116, 148, 64), (92, 76, 60)),
        Appearance("autumn", "foliage", (206, 112, 30), (228, 168, 52), (78, 64, 54)),
        Appearance("copper", "foliage", (98, 38, 50), (140, 60, 62), (70, 60, 58)),
        Appearance("blossom", "foliage", (232, 170, 186), (248, 218, 224), (82, 66, 60)),
    ),
    (
        Appearance("red", "paint", (186, 26, 30)),
        Appearance("blue", "paint", (30, 76, 168)),
        Appearance("white", "paint", (236, 236, 232)),
        Appearance("black", "paint", (24, 25, 28)),
        Appearance("yellow", "paint", (240, 186, 24)),
        Appearance("silver", "metallic", (122, 125, 130)),
    ),
    (
        Appearance("red-coat", "cloth", (190, 36, 40), (46, 50, 66)),
        Appearance("blue-jacket", "cloth", (44, 88, 172), (176, 158, 128)),
        Appearance("black-coat", "cloth", (34, 34, 38), (58, 60, 66)),
        Appearance("mustard-coat", "cloth", (226, 170, 40), (54, 62, 84)),
        Appearance("white-shirt", "cloth", (236, 234, 228), (72, 96, 142)),
    ),
    (
        Appearance("steel", "metal", (158, 164, 170)),
        Appearance("black-iron", "metal", (38, 40, 44)),
        Appearance("green-iron", "metal", (40, 92, 70)),
    ),
    (
        Appearance("white", "paint", (236, 236, 232)),
        Appearance("yellow", "paint", (240, 190, 48)),
    ),
)
"""Styles of every class, in the order of their labels; each instance has one of them with equal probability."""


@dataclass(frozen=True)
class Look:
    """The style of one instance, with its own colour."""

    style: Appearance
    colour: RGB
    """The style's colour with the instance's own small deviation."""
    seed: int
    """Shifts textures, so that two instances of one style do not repeat each other."""


def draw_look(rng: np.random.Generator, label: int) -> Look:
    """Draw a style of class `label`, with a small deviation of its colour."""
    styles = STYLES[label]
    style = styles[int(rng.integers(len(styles)))]
    gain = rng.uniform(0.93, 1.07) + rng.uniform(-0.025, 0.025, 3)
    red, green, blue = (int(value) for value in np.clip(np.array(style.colour) * gain, 0, 255).round())
    return Look(style, (red, green, blue), int(rng.integers(1 << 12)))


@lru_cache(maxsize=1024)
def linear(colour: RGB) -> np.ndarray:
    """8-bit sRGB to linear light, float32 [3], read-only."""
    light = (np.array(colour, np.float32) / np.float32(255)) ** np.float32(2.2)
    light.setflags(write=False)
    return light
