"""CycleGAN's folders."""

from __future__ import annotations

import numpy as np
import pytest

from hdgan.data import DataConfig, find_pairs
from hdgan.errors import ConfigError, DataError

from .conftest import COLORS

LABEL = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)


@pytest.fixture
def pairs(save) -> None:
    for phase in ("train", "test"):
        save(f"source/{phase}A/x.jpg", np.zeros((2, 3, 3), np.uint8))
        save(f"source/{phase}B/x.png", COLORS[LABEL])


def test_pairs_of_images(pairs, convert, root, tmp_path) -> None:
    report = convert()
    assert report.summary.samples == {"test": 1, "train": 1}
    assert report.summary.n_labels == 0
    assert report.spec is None
    for phase in ("train", "test"):
        (pair,) = find_pairs(DataConfig(root=tmp_path / "out"), phase).pairs
        assert pair.input is not None
        assert pair.photo is not None
        assert pair.input.read_bytes() == (root / f"{phase}A/x.jpg").read_bytes()
        assert pair.photo.read_bytes() == (root / f"{phase}B/x.png").read_bytes()


def test_one_side_may_be_label_maps(pairs, save, convert, classes, maps) -> None:
    with pytest.raises(ConfigError, match=r"`hdgan data palette .*trainB --out classes.csv` writes it"):
        convert(labels_in="B")
    assert convert(labels_in="B", classes=classes).summary.n_labels == 4
    assert np.array_equal(maps("test/x")[0], LABEL)


def test_labels_may_be_numbers(pairs, save, convert, maps) -> None:
    for phase in ("train", "test"):
        save(f"source/{phase}B/x.png", LABEL)
    convert(labels_in="B")
    assert np.array_equal(maps("train/x")[0], LABEL)


def test_unpaired_images_are_refused(save, convert) -> None:
    save("source/trainA/horse.png", LABEL)
    save("source/trainB/zebra.png", LABEL)
    with pytest.raises(DataError, match=r"unpaired images .CycleGAN's. cannot be trained on"):
        convert()


def test_sizes_must_agree(pairs, save, convert) -> None:
    save("source/trainA/x.jpg", np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"x.jpg is 4x2, but .*x.png is 3x2"):
        convert()


def test_classes_need_a_side(pairs, convert, classes) -> None:
    with pytest.raises(ConfigError, match="classes has no effect on pairs of images: give labels_in A or B"):
        convert(classes=classes)
