"""Strips of images of the first held-out scenes: their label maps, their photos, and what each row makes of them.

    DOCS/evidence/SIZE/label.png        the label maps
    DOCS/evidence/SIZE/real.png         the photos
    DOCS/evidence/SIZE/ROW-SEED.png     the images of a run

A row has the strip of one run. Each strip is a file of its own, so that those of rows that other machines have trained
stay when a machine adds its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.data.colors import colorize_labels, to_image
from hdgan.files import save_png
from hdgan.inference.pipeline import load
from hdgan.reproduce.jobs import Job
from hdgan.reproduce.kept import Run
from hdgan.reproduce.plan import ROWS
from hdgan.reproduce.results import REAL
from hdgan.scenes import SPEC, ensure_scenes

SHOWN = 4
"""Held-out scenes in a strip."""
GAP = 4
"""Pixels between them."""
LABEL = "label"


def find_strips(folder: Path, runs: Collection[Run]) -> dict[str, Path]:
    """The strips by their titles: label maps, photos, and for each row that of its lowest seed that has one.

    Args:
        folder: of the strips, which need not exist.
        runs: row and seed of those that count.
    """
    strips = {"Label maps": folder / f"{LABEL}.png", "Real photos": folder / f"{REAL}.png"}
    for row, experiment in ROWS.items():
        seeds = sorted(seed for name, seed in runs if name == row and _strip(folder, row, seed).is_file())
        strips |= {f"{experiment.title}, seed {seed}": _strip(folder, row, seed) for seed in seeds[:1]}
    return {title: file for title, file in strips.items() if file.is_file()}


def write_strips(folder: Path, own: Mapping[Run, Job], taken: Collection[Run]) -> None:
    """Write the strips of label maps and photos, and of the rows that were trained here.

    A row gets the strip of its run with the lowest seed, and its other strips are deleted. It keeps the strip of a
    lower seed that was taken.

    Args:
        folder: of the strips.
        own: the scored runs of this machine.
        taken: row and seed of the runs of others.
    """
    if not own:
        return
    root = ensure_scenes(next(iter(own.values())).folder.scale.scenes)
    labels, ids, photos = (sorted((root / f"test_{kind}").glob("*.png"))[:SHOWN] for kind in ("label", "inst", "img"))
    maps = [colorize_labels(np.asarray(Image.open(file)), SPEC.palette) for file in labels]
    save_png(_side_by_side(maps), folder / f"{LABEL}.png")
    save_png(_side_by_side([Image.open(file) for file in photos]), folder / f"{REAL}.png")
    lowest = dict(sorted(own, reverse=True))  # seeds by rows: the last of a row wins
    for row, seed in lowest.items():
        if any(name == row and lower < seed and _strip(folder, name, lower).is_file() for name, lower in taken):
            continue
        for file in folder.glob("*.png"):
            if file.stem.rpartition("-")[0] == row:
                file.unlink()
        pipeline = load(own[row, seed].run, device="cpu")
        made = (pipeline(label, instances, seed=0) for label, instances in zip(labels, ids, strict=True))
        save_png(_side_by_side([to_image(image * 2 - 1) for image in made]), _strip(folder, row, seed))


def _strip(folder: Path, row: str, seed: int) -> Path:
    return folder / f"{row}-{seed}.png"


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """A strip of images of equal size."""
    width, height = images[0].size
    strip = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for column, image in enumerate(images):
        strip.paste(image, (column * (width + GAP), 0))
    return strip
