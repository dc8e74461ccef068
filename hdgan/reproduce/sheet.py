"""An image of what the models generate from the first held-out scenes: a column for each scene, a row for each
model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hdgan.data.colors import colorize_labels, to_image
from hdgan.inference.pipeline import load
from hdgan.reproduce.jobs import Job
from hdgan.reproduce.plan import ROWS
from hdgan.scenes import SPEC, ensure_scenes

SHOWN = 4
"""Held-out scenes that the image shows."""
GAP = 4
MARGIN = 190
"""Pixels for the names at the left."""
TEXT = 14


def runs_sheet(runs: Sequence[Job]) -> Image.Image:
    """Show label maps, photos, and the images that each run generates from the label maps."""
    root = ensure_scenes(runs[0].folder.scale.scenes)
    labels, ids, photos = (sorted((root / f"test_{kind}").glob("*.png"))[:SHOWN] for kind in ("label", "inst", "img"))
    rows: dict[str, list[Image.Image]] = {
        "label map": [colorize_labels(np.asarray(Image.open(file)), SPEC.palette) for file in labels],
        "real": [Image.open(file) for file in photos],
    }
    for run in runs:
        pipeline = load(run.run, device="cpu")
        made = (pipeline(label, instances, seed=0) for label, instances in zip(labels, ids, strict=True))
        rows[ROWS[run.name].title] = [to_image(image * 2 - 1) for image in made]
    return sheet(rows)


def sheet(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Put rows of images of equal size below each other, each row with its name on the left."""
    width, height = next(iter(rows.values()))[0].size
    columns = max(map(len, rows.values()))
    page = Image.new("RGB", (MARGIN + columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for row, (name, pictures) in enumerate(rows.items()):
        top = row * (height + GAP)
        draw.text((GAP, top + height / 2), name, "black", font, anchor="lm")
        for column, image in enumerate(pictures):
            page.paste(image, (MARGIN + column * (width + GAP), top))
    return page
