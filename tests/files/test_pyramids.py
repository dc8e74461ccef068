"""Pyramids hold every number of the image, and the means of these."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from hdgan.data.windows import open_image
from hdgan.errors import ConfigError, HdganError
from hdgan.files.pyramids import level_sizes, write_pyramid

RNG = np.random.default_rng(0)
slides = pytest.mark.slides


@pytest.fixture
def tifffile() -> ModuleType:
    import tifffile

    return tifffile


def random_image(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    if dtype == "float32":
        return RNG.uniform(-1, 1, (height, width, channels)).astype(np.float32)
    return RNG.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


def in_blocks(image: np.ndarray, length: int) -> Iterator[np.ndarray]:
    yield from (image[top : top + length] for top in range(0, len(image), length))


def mean_of(image: np.ndarray) -> np.ndarray:
    """The mean of each 2x2 pixels, or of those that there are at the lower and right sides; halves are rounded up."""
    height, width, channels = image.shape
    padded = np.full((height + height % 2, width + width % 2, channels), np.nan)
    padded[:height, :width] = image
    means = np.nanmean(padded.reshape(len(padded) // 2, 2, -1, 2, channels), axis=(1, 3))
    return (means if image.dtype == np.float32 else np.floor(means + 0.5)).astype(image.dtype)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((512, 300), [(512, 300)]),
        ((513, 1), [(513, 1), (257, 1)]),
        ((700, 2049), [(700, 2049), (350, 1025), (175, 513), (88, 257)]),
    ],
)
def test_levels(size, levels):
    assert level_sizes(*size) == levels


@slides
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [
        (1, "uint8"),
        (2, "uint8"),
        (3, "uint8"),
        (4, "uint8"),
        (3, "uint16"),
        (5, "uint16"),
        (1, "float32"),
        (3, "float32"),
    ],
)
def test_every_number_and_its_means_can_be_read_back(tifffile, tmp_path, channels, dtype):
    image, path = random_image(603, 1031, channels, dtype), tmp_path / "a.ome.tif"
    write_pyramid(path, in_blocks(image, 100), *image.shape, dtype)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert file.is_ome
        (series,) = file.series
        assert series.axes == ("YX" if channels == 1 else "YXS")
        levels = [level.asarray().reshape(*level.shape[:2], channels) for level in series.levels]
        assert {(page.tile, int(page.compression)) for level in series.levels for page in level.pages} == {
            ((256, 256), 8)
        }
        assert series.keyframe.photometric == (2 if channels in (3, 4) and dtype != "float32" else 1)
    assert [level.shape[:2] for level in levels] == level_sizes(603, 1031)
    assert np.array_equal(levels[0], image)
    for above, level in itertools.pairwise(levels):
        assert level.dtype == dtype
        assert np.allclose(level, mean_of(above), rtol=0, atol=1e-6 if dtype == "float32" else 0)
    with open_image(path) as windows:
        assert np.array_equal(windows.read(250, 603, 200, 800), image[250:603, 200:800])


@slides
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (256, 512), (257, 513)])
def test_sizes_at_the_limits_of_tiles(tifffile, tmp_path, size):
    image, path = random_image(*size, 3, "uint8"), tmp_path / "a.tif"
    write_pyramid(path, in_blocks(image, 7), *size, 3, "uint8")
    with tifffile.TiffFile(path) as file:
        levels = [level.asarray() for level in file.series[0].levels]
    assert np.array_equal(levels[0], image)
    assert [level.shape[:2] for level in levels] == level_sizes(*size)
    for above, level in itertools.pairwise(levels):
        assert np.array_equal(level, mean_of(above))


@slides
def test_memory_does_not_grow_with_the_height(tmp_path, monkeypatch):
    monkeypatch.setattr("hdgan.files.pyramids._BUFFER", 2**20)
    block = random_image(64, 1024, 3, "uint8")
    peaks = []
    for height in (1024, 6144):
        tracemalloc.start()
        write_pyramid(tmp_path / "a.tif", (block for _ in range(height // 64)), height, 1024, 3, "uint8")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 6144 * 1024 * 3


@slides
@pytest.mark.parametrize("n", [599, 601])
def test_a_wrong_number_of_rows_leaves_the_old_file(tmp_path, n):
    (tmp_path / "a.tif").write_bytes(b"old")
    with pytest.raises(ValueError, match="rows for an image of 600"):
        write_pyramid(tmp_path / "a.tif", [np.zeros((n, 20, 1), np.uint8)], 600, 20, 1, "uint8")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.tif", b"old")]


@slides
def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HdganError, match="cannot write"):
        write_pyramid(tmp_path / "file" / "a.tif", [np.zeros((1, 1, 1), np.uint8)], 1, 1, 1, "uint8")


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr("hdgan.files.slides.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="writing a pyramid needs tifffile and imagecodecs"):
        write_pyramid(tmp_path / "a.tif", [], 1, 1, 1, "uint8")
    assert not list(tmp_path.iterdir())
