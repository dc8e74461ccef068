"""Make docs/demo.png: `python docs/demo_picture.py`.

The model that comes with hdgan generates images of the label maps and instance maps of held-out scenes: with the style
of each object in the rendered scene, and with styles that are drawn from the clusters of its class.
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

ROWS = 4
"""The first held-out scenes, which are shown."""
GAP = 4


def demo_picture() -> Image.Image:
    """Put the label map and both images of each scene side by side."""
    model = hdgan.load("demo", device="cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scenes = choose_scenes(Path("demo"), model, ROWS, Path(folder), ())
        write_held_out(scenes, Path(folder))
        for number, pair in enumerate(held_out_pairs(scenes, Path(folder))):
            label, ids, photo = pair.label, pair.ids, Path(folder) / "test_img" / f"{pair.stem}.png"
            drawn = model.bank.sample(model.instances(label, ids), seed=number)
            pictures = [
                colorize_labels(np.asarray(Image.open(label)), SPEC.palette),
                to_pil(model(label, ids, photo=photo, seed=0)),
                to_pil(model(label, ids, styles=drawn, seed=0)),
            ]
            rows.append(np.concatenate([np.pad(np.asarray(p), ((0, GAP), (0, GAP), (0, 0))) for p in pictures], axis=1))
    return Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP])


if __name__ == "__main__":
    save_png(demo_picture(), Path(__file__).with_name("demo.png"))
