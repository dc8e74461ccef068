"""Make docs/tutorials/styles.png: `python -m docs.pictures.styles`.

The model that comes with hdgan paints one held-out scene in the mean style of each class, and in random styles.
"""

from __future__ import annotations

from PIL import Image

from docs.pictures.scenes import DOCS, held_out, label_picture, side_by_side
from hdgan.files import save_png
from hdgan.inference import to_pil

VARIANTS = 3
COLOURS = 256


def styles_picture() -> Image.Image:
    """Put the label map of a scene and its images side by side."""
    with held_out(1) as (model, ((label, ids, _),)):
        instances = model.instances(label, ids)
        styles = [None, *(model.bank.sample(instances, 7, variant) for variant in range(VARIANTS))]
        images = [to_pil(model(label, ids, styles=style, seed=7)) for style in styles]
        return side_by_side([[label_picture(label), *images]])


if __name__ == "__main__":
    save_png(styles_picture().quantize(COLOURS), DOCS / "tutorials" / "styles.png")
