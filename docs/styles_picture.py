"""Make docs/tutorials/styles.png: `python docs/styles_picture.py`.

The model that comes with hdgan paints one held-out scene in the mean style of each class, and in random styles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import hdgan
from hdgan.commands.scene_choice import choose_scenes
from hdgan.data.colors import colorize_labels
from hdgan.files import save_png
from hdgan.inference import to_pil
from hdgan.scenes import SPEC, held_out_pairs, write_held_out

VARIANTS = 3
COLOURS = 256
GAP = 4


def styles_picture() -> Image.Image:
    """Put the label map of a scene and its images side by side."""
    model = hdgan.load("demo", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        scenes = choose_scenes(Path("demo"), model, 1, Path(folder), ())
        write_held_out(scenes, Path(folder))
        (pair,) = held_out_pairs(scenes, Path(folder))
        label, ids = pair.label, pair.ids
        instances = model.instances(label, ids)
        styles = [None, *(model.bank.sample(instances, 7, variant) for variant in range(VARIANTS))]
        pictures = [np.asarray(to_pil(model(label, ids, styles=style, seed=7))) for style in styles]
        pictures.insert(0, np.asarray(colorize_labels(np.asarray(Image.open(label)), SPEC.palette)))
    return Image.fromarray(
        np.concatenate([np.pad(picture, ((0, 0), (0, GAP), (0, 0))) for picture in pictures], axis=1)[:, :-GAP]
    )


if __name__ == "__main__":
    picture = styles_picture().quantize(COLOURS)
    save_png(picture, Path(__file__).with_name("tutorials") / "styles.png")
