"""Make docs/demo.png: `python docs/demo_picture.py`.

The model that comes with hdgan paints held-out scenes: with each object's style from the rendered scene, and with
styles that are drawn from the clusters of its class.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

import hdgan
from hdgan.commands.scene_choice import scenes_of
from hdgan.data.colors import colorize_ids, colorize_labels
from hdgan.files import save_png
from hdgan.scenes import SPEC, held_out_pairs, write_held_out

ROWS = (0, 1, 2, 3)
"""Which of the held-out scenes are shown."""
GAP = 4


def demo_picture() -> Image.Image:
    """Put label map, instances, rendered scene and both images of each scene side by side."""
    model = hdgan.load("demo", device="cpu")
    found = scenes_of(model)
    assert found is not None
    scenes = replace(found[0], test=max(ROWS) + 1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_held_out(scenes, Path(folder))
        pairs = held_out_pairs(scenes, Path(folder))
        for number in ROWS:
            label, ids = pairs[number].label, pairs[number].ids
            assert label is not None
            photo = Path(folder) / "test_img" / label.name
            drawn = model.bank.sample(model.instances(label, ids), seed=number)
            pictures = [
                colorize_labels(np.asarray(Image.open(label)), SPEC.palette),
                colorize_ids(np.asarray(Image.open(ids))),
                Image.open(photo).convert("RGB"),
                to_picture(model(label, ids, photo=photo, seed=0)),
                to_picture(model(label, ids, styles=drawn, seed=0)),
            ]
            rows.append(np.concatenate([np.pad(np.asarray(p), ((0, GAP), (0, GAP), (0, 0))) for p in pictures], axis=1))
    return Image.fromarray(np.concatenate(rows)[:-GAP, :-GAP])


def to_picture(image: Tensor) -> Image.Image:
    """An image [3, H, W] in [0, 1] as 8 bits."""
    return Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy())


if __name__ == "__main__":
    save_png(demo_picture(), Path(__file__).with_name("demo.png"))
