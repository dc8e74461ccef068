from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from hdgan.data.images import read_input
from hdgan.errors import HdganError
from hdgan.files.images import image_ending, save_image

RNG = np.random.default_rng(0)
DEPTHS = ("uint8", "uint16", "float32")


def values(channels: int, depth: str) -> np.ndarray:
    if depth == "float32":
        return RNG.uniform(-1, 1, (5, 7, channels)).astype(np.float32)
    return RNG.integers(0, np.iinfo(depth).max, (5, 7, channels), dtype=depth, endpoint=True)


@pytest.mark.parametrize(("channels", "depth"), list(itertools.product((1, 2, 3, 4, 5, 9), DEPTHS)))
def test_every_number_can_be_read_back(tmp_path, channels, depth):
    image, ending = values(channels, depth), image_ending(channels, depth)
    path = tmp_path / f"image{ending}"
    save_image(image, path)
    read = read_input(path)
    assert read.dtype == depth
    assert np.array_equal(read, image)
    with Image.open(path) as opened:
        assert opened.format == {".png": "PNG", ".tif": "TIFF"}[ending]
        assert getattr(opened, "n_frames", 1) == (1 if ending == ".png" else channels)
        if ending == ".png":
            opened.verify()


@pytest.mark.parametrize(
    ("channels", "depth", "ending"),
    [
        (1, "uint8", ".png"),
        (4, "uint8", ".png"),
        (3, "uint16", ".png"),
        (5, "uint8", ".tif"),
        (5, "uint16", ".tif"),
        (1, "float32", ".tif"),
    ],
)
def test_ending(channels, depth, ending):
    assert image_ending(channels, depth) == ending


def test_pillow_reads_the_same_16_bit_grey(tmp_path):
    image = values(1, "uint16")
    save_image(image, tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as opened:
        assert opened.mode == "I;16"
        assert np.array_equal(np.asarray(opened), image[..., 0])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HdganError, match="file"):
        save_image(values(1, "uint8"), tmp_path / "file" / "image.png")
