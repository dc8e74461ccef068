"""Small made datasets, written to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an array under the temporary folder, as the ending says."""

    def write(name: str, array: np.ndarray, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            Image.fromarray(array).save(path, **options)
        return path

    return write


@pytest.fixture
def nvidia(tmp_path: Path, save: Save) -> Path:
    """Five training triples 12x8 with 4 labels, and two test pairs without photos.

    Pixel (x, y) has label (x + y + i) % 4, id 70000 + 100 * y + x, and the colour (label, x, y).
    """
    y, x = np.mgrid[:8, :12]
    for phase, count in (("train", 5), ("test", 2)):
        for i in range(count):
            label = ((x + y + i) % 4).astype(np.uint8)
            save(f"{phase}_label/s{i}_label.png", label)
            save(f"{phase}_inst/s{i}_inst.tif", (70000 + 100 * y + x).astype(np.int32))
            if phase == "train":
                save(f"{phase}_img/s{i}_img.png", np.stack([label, x, y], axis=2).astype(np.uint8))
    return tmp_path
