"""What the pictures of scenes share: the model that comes with hdgan, held-out scenes, and images side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import hdgan
from hdgan.commands.scene_choice import choose_scenes
from hdgan.data.colors import colorize_labels
from hdgan.scenes import SPEC, held_out_pairs, write_held_out

DOCS = Path(__file__).parents[1]
GAP = 4
"""Pixels between two images."""


class SceneFiles(NamedTuple):
    """The files of a held-out scene."""

    label: Path
    ids: Path
    photo: Path


@contextmanager
def held_out(number: int) -> Iterator[tuple[hdgan.Pipeline, list[SceneFiles]]]:
    """The model, and the first held-out scenes."""
    model = hdgan.load("demo", device="cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = choose_scenes(Path("demo"), model, number, folder, ())
        write_held_out(scenes, folder)
        folders = [folder / f"test_{part}" for part in ("label", "inst", "img")]
        stems = [pair.stem for pair in held_out_pairs(scenes, folder)]
        yield model, [SceneFiles(*(part / f"{stem}.png" for part in folders)) for stem in stems]


def label_picture(file: Path) -> Image.Image:
    """A label map in the colours of its classes."""
    return colorize_labels(np.asarray(Image.open(file)), SPEC.palette)


def side_by_side(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of images of one size, with black between them."""
    padded = [[np.pad(np.asarray(image), ((0, GAP), (0, GAP), (0, 0))) for image in row] for row in rows]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in padded])[:-GAP, :-GAP])
