"""Make docs/demo.png from a finished demo run: `python docs/demo_picture.py runs/demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.files import save_png

COLUMNS = ("label", "instances", "real")
GAP = 4


def demo_picture(run: Path) -> Image.Image:
    """Put the last samples of the run's last stage side by side: label, instances, scene, generated."""
    stage = run / "samples" / "joint"
    last = max(folder for folder in stage.iterdir() if folder.name.isdecimal())
    rows = []
    for generated in sorted(last.glob("*.png")):
        files = [stage / "inputs" / f"{generated.stem}_{name}.png" for name in COLUMNS]
        pictures = [np.asarray(Image.open(file).convert("RGB")) for file in [*files, generated]]
        rows.append(np.concatenate([np.pad(picture, ((0, GAP), (0, GAP), (0, 0))) for picture in pictures], axis=1))
    sheet = np.concatenate(rows)[:-GAP, :-GAP]
    return Image.fromarray(sheet)


if __name__ == "__main__":
    save_png(demo_picture(Path(sys.argv[1])), Path(__file__).with_name("demo.png"))
