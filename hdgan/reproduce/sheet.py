"""A picture of what the models make of the first held-out scenes: a column for each scene, a row for each model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hdgan.data.colors import colorize_labels
from hdgan.data.config import ScenesConfig
from hdgan.reproduce.folder import Folder
from hdgan.reproduce.plan import ROWS, Scale
from hdgan.scenes import SPEC, ensure_scenes

SHOWN = 4
"""Held-out scenes of which pictures are kept."""
GAP = 4
MARGIN = 190
"""Pixels for the names at the left."""
TEXT = 14


def shown(scenes: ScenesConfig, kind: str) -> list[Path]:
    """Files of the held-out scenes that are shown; kind is label, inst or img."""
    return sorted((ensure_scenes(scenes) / f"test_{kind}").glob("*.png"))[:SHOWN]


def runs_sheet(folder: Folder, scale: Scale, names: Collection[str]) -> Image.Image:
    """Label maps, photos, and what the first seed's runs of the named rows made of them."""
    scenes = scale.data.scenes
    rows: dict[str, list[Image.Image]] = {
        "label map": [colorize_labels(np.asarray(Image.open(file)), SPEC.palette) for file in shown(scenes, "label")],
        "real": [Image.open(file) for file in shown(scenes, "img")],
    }
    for name, row in ROWS.items():
        if name in names:
            rows[row.title] = [Image.open(file) for file in sorted(folder.scenes(name, 0).glob("*.png"))]
    return sheet(rows)


def sheet(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Put rows of pictures of one size below each other, each with its name at the left."""
    width, height = next(iter(rows.values()))[0].size
    columns = max(map(len, rows.values()))
    page = Image.new("RGB", (MARGIN + columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for row, (name, pictures) in enumerate(rows.items()):
        top = row * (height + GAP)
        draw.text((GAP, top + height / 2), name, "black", font, anchor="lm")
        for column, picture in enumerate(pictures):
            page.paste(picture, (MARGIN + column * (width + GAP), top))
    return page
