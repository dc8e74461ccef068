"""Classes of the street scenes and the appearance styles that their instances are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RGB = tuple[int, int, int]

CLASSES: tuple[str, ...] = ("sky", "road", "pavement", "building", "tree", "car", "person", "pole", "marking")
"""Names of the classes; the index is the label id."""

SKY, ROAD, PAVEMENT, BUILDING, TREE, CAR, PERSON, POLE, MARKING = range(len(CLASSES))

PALETTE = np.array(
    [
        (126, 182, 224),
        (92, 84, 110),
        (214, 178, 196),
        (146, 122, 104),
        (96, 150, 74),
        (32, 74, 168),
        (214, 56, 66),
        (238, 196, 88),
        (240, 240, 236),
    ],
    dtype=np.uint8,
)  # [n_classes, 3]
"""Colours, in the order of `CLASSES`, for showing label maps."""


@dataclass(frozen=True)
class Style:
    """One discrete look of a class; colours are 8-bit sRGB reflectances before light falls on them."""

    name: str
    texture: str
    colour: RGB
    """What the eye calls the colour of the thing."""
    accent: RGB = (128, 128, 128)
    """Second colour: zenith against horizon, trousers against coat, the other leaves, the roof."""
    trim: RGB = (200, 196, 188)
    """Small parts: window frames, joints, trunks."""


STYLES: tuple[tuple[Style, ...], ...] = (
    (
        Style("morning", "clear", (98, 158, 222), (216, 228, 236), (255, 255, 255)),
        Style("afternoon", "cumulus", (66, 130, 212), (190, 214, 234), (255, 255, 255)),
        Style("overcast", "stratus", (150, 158, 168), (206, 209, 211), (226, 228, 230)),
        Style("sunset", "cirrus", (104, 112, 168), (250, 186, 122), (255, 196, 160)),
    ),
    (
        Style("fresh-asphalt", "asphalt", (70, 72, 77)),
        Style("worn-asphalt", "asphalt", (144, 139, 130)),
        Style("cobblestone", "cobblestone", (110, 114, 124)),
        Style("clinker", "brick", (122, 86, 74)),
    ),
    (
        Style("grey-slabs", "slabs", (158, 158, 156)),
        Style("sandstone", "slabs", (204, 178, 138)),
        Style("red-pavers", "pavers", (168, 102, 84)),
        Style("basalt", "pavers", (86, 88, 94)),
    ),
    (
        Style("red-brick", "brick", (154, 82, 66), (74, 70, 74), (226, 216, 200)),
        Style("cream-plaster", "plaster", (232, 218, 188), (158, 84, 62), (250, 246, 236)),
        Style("ochre-plaster", "plaster", (210, 158, 86), (140, 76, 58), (240, 228, 204)),
        Style("grey-stone", "stone", (146, 148, 150), (82, 86, 94), (186, 186, 184)),
        Style("sage-plaster", "plaster", (120, 158, 130), (96, 74, 66), (238, 236, 224)),
        Style("glass", "glass", (94, 110, 122), (66, 74, 84), (52, 60, 70)),
    ),
    (
        Style("summer", "foliage", (74, 112, 46), (116, 148, 64), (92, 76, 60)),
        Style("autumn", "foliage", (206, 112, 30), (228, 168, 52), (78, 64, 54)),
        Style("copper", "foliage", (98, 38, 50), (140, 60, 62), (70, 60, 58)),
        Style("blossom", "foliage", (232, 170, 186), (248, 218, 224), (82, 66, 60)),
    ),
    (
        Style("red", "paint", (186, 26, 30)),
        Style("blue", "paint", (30, 76, 168)),
        Style("white", "paint", (236, 236, 232)),
        Style("black", "paint", (24, 25, 28)),
        Style("yellow", "paint", (240, 186, 24)),
        Style("silver", "metallic", (122, 125, 130)),
    ),
    (
        Style("red-coat", "cloth", (190, 36, 40), (46, 50, 66)),
        Style("blue-jacket", "cloth", (44, 88, 172), (176, 158, 128)),
        Style("black-coat", "cloth", (34, 34, 38), (58, 60, 66)),
        Style("mustard-coat", "cloth", (226, 170, 40), (54, 62, 84)),
        Style("white-shirt", "cloth", (236, 234, 228), (72, 96, 142)),
    ),
    (
        Style("steel", "metal", (158, 164, 170)),
        Style("black-iron", "metal", (38, 40, 44)),
        Style("green-iron", "metal", (40, 92, 70)),
    ),
    (
        Style("white", "paint", (236, 236, 232)),
        Style("yellow", "paint", (240, 190, 48)),
    ),
)
"""Styles of every class, in the order of `CLASSES`; an instance draws one of them with equal chances."""


@dataclass(frozen=True)
class Look:
    """A style as one instance wears it."""

    style: Style
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
    """8-bit sRGB to linear light, float32 [3], not to be written to."""
    light = (np.array(colour, np.float32) / np.float32(255)) ** np.float32(2.2)
    light.setflags(write=False)
    return light
