"""Small made datasets, written to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .packing import RNG, SIZES, pack_into

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


@pytest.fixture
def scenes(save, tmp_path: Path) -> Path:
    """Three pairs 6x4 whose ids follow the rule of classes, all but one pixel."""
    label = np.array([[0, 0, 0, 2, 2, 2]] * 4, np.uint8)
    ids = np.array([[0, 0, 0, 2000, 2000, 2001]] * 4, np.uint16)
    for name in "abc":
        save(f"train_label/{name}.png", label)
        save(f"train_inst/{name}.png", ids)
        save(f"train_img/{name}.png", np.zeros((4, 6, 3), np.uint8))
        ids[0, 0] = 1000
    return tmp_path


@pytest.fixture
def spoil(scenes: Path, save: Save) -> Callable[[], None]:
    """Put one fault of every kind into `scenes`, each in its own pair."""

    def spoil() -> None:
        (scenes / "train_img/a.png").write_bytes(b"no image")
        save("train_label/b.png", np.full((4, 6), 7, np.uint8))
        save("train_inst/c.png", np.zeros((4, 5), np.uint8))
        save("train_img/d.png", np.zeros((4, 6, 3), np.uint8))

    return spoil


@pytest.fixture
def street(save, tmp_path: Path) -> Path:
    """Four training triples of noise, 37x23, the ids negative, of 8, 16 and 17 bits; a test pair without photo."""
    for i, (low, high) in enumerate([(-5, 40), (0, 256), (0, 65536), (0, 70000)]):
        save(f"street/train_label/city/{i}_label.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
        save(f"street/train_inst/city/{i}_inst.tif", RNG.integers(low, high, (23, 37), dtype=np.int32))
        save(f"street/train_img/city/{i}_img.png", RNG.integers(0, 256, (23, 37, 3), dtype=np.uint8))
    save("street/test_label/t.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
    save("street/test_inst/t.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))
    return tmp_path / "street"


@pytest.fixture
def packed(street: Path, tmp_path: Path) -> Path:
    """`street` in 20x12 and 16x8."""
    return pack_into(street, tmp_path / "packed", *SIZES)
