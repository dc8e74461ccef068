"""What the pictures of scenes share: the model that comes with hdgan, held-out scenes, and images side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import hdgan
from hdgan.commands.scene_choice import choose_scenes
from hdgan.data import Pair
from hdgan.data.colors import colorize_labels
from hdgan.scenes import SPEC, held_out_pairs, write_held_out

DOCS = Path(__file__).parents[1]
GAP = 4
"""Pixels between two images."""


@contextmanager
def held_out(number: int) -> Iterator[tuple[hdgan.Pipeline, list[Pair]]]:
    """The model, and the files of the first held-out scenes: label map, instance map and photo."""
    model = hdgan.load("demo", device="cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = choose_scenes(Path("demo"), model, number, folder, ())
        write_held_out(scenes, folder)
        pairs = held_out_pairs(scenes, folder)
        yield model, [replace(pair, photo=folder / "test_img" / f"{pair.stem}.png") for pair in pairs]


def label_picture(pair: Pair) -> Image.Image:
    """The label map of a scene in the colours of its classes."""
    return colorize_labels(np.asarray(Image.open(pair.label)), SPEC.palette)


def side_by_side(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of images of one size, with black between them."""
    padded = [[np.pad(np.asarray(image), ((0, GAP), (0, GAP), (0, 0))) for image in row] for row in rows]
    return Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in padded])[:-GAP, :-GAP])
