"""Make docs/demo.png: `python -m docs.pictures.demo`.

The model that comes with hdgan generates images of the label maps and instance maps of held-out scenes: with the style
of each object in the rendered scene, and with styles that are drawn from the clusters of its class.
"""

from __future__ import annotations

from PIL import Image

from docs.pictures.scenes import DOCS, held_out, label_picture, side_by_side
from hdgan.files import save_png
from hdgan.inference import to_pil

ROWS = 4
"""The first held-out scenes, which are shown."""


def demo_picture() -> Image.Image:
    """Put the label map and both images of each scene side by side."""
    rows = []
    with held_out(ROWS) as (model, scenes):
        for number, (label, ids, photo) in enumerate(scenes):
            drawn = model.bank.sample(model.instances(label, ids), seed=number)
            images = [model(label, ids, photo=photo, seed=0), model(label, ids, styles=drawn, seed=0)]
            rows.append([label_picture(label), *map(to_pil, images)])
    return side_by_side(rows)


if __name__ == "__main__":
    save_png(demo_picture(), DOCS / "demo.png")
