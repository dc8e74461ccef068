"""Windows are the same parts of what `read_map` and `read_input` give, for every kind of source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_input, read_map
from hdgan.data.windows import Windows, open_image, open_map
from hdgan.errors import ConfigError, DataError

from . import writers

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 45, 67
IDS8 = RNG.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
IDS32 = RNG.integers(-5, 2**31, (HEIGHT, WIDTH)).astype(np.int32)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
SMALL_LIMIT = str(2900 / 2**30)
"""GiB; less than the pixels of the images here."""


def windows_of(height: int, width: int, n: int = 12) -> list[tuple[int, int, int, int]]:
    """Some windows, among them the whole image."""
    places = [(0, height, 0, width)]
    while len(places) < n:
        rows, columns = (sorted(RNG.choice(side + 1, 2, replace=False)) for side in (height, width))
        places.append((int(rows[0]), int(rows[1]), int(columns[0]), int(columns[1])))
    return places


def check(windows: Windows, whole: np.ndarray) -> None:
    """Compare windows with the same parts of the whole, [H, W] of a map or [H, W, C]."""
    with windows:
        assert (windows.height, windows.width, windows.dtype) == (*whole.shape[:2], whole.dtype)
        assert windows.channels == (1 if whole.ndim == 2 else whole.shape[2])
        for top, bottom, left, right in windows_of(*whole.shape[:2]):
            part = windows.read(top, bottom, left, right)
            assert part.dtype == whole.dtype
            assert np.array_equal(part, whole[top:bottom, left:right])
            assert part.flags.writeable
            assert type(part) is np.ndarray


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("ids.png", IDS8),
        ("ids16.png", IDS8.astype(np.uint16) * 257),
        ("ids.tif", IDS32),
        ("ids.bmp", IDS8),
        ("ids.npy", IDS32.astype(np.int64)),
        ("ids16.npy", IDS8.astype(">u2")),
        ("column.npy", np.asfortranarray(IDS32)[..., None]),
        ("bits.npy", IDS8 % 2 == 0),
    ],
)
def test_maps(save, name, array):
    path = save(name, array)
    check(open_map(path), read_map(path))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("photo.png", RGB),
        ("photo.jpg", RGB),
        ("photo.tif", RGB),
        ("photo.webp", RGB),
        ("grey.png", IDS8.astype(np.uint16) * 257),
        ("floats.tif", RNG.random((HEIGHT, WIDTH), dtype=np.float32)),
        ("eleven.npy", RNG.random((HEIGHT, WIDTH, 11)).astype(np.float64)),
        ("deep.npy", RGB.astype(">u2")),
        ("fortran.npy", np.asfortranarray(RGB)),
        ("bits.npy", IDS8 % 2 == 0),
    ],
)
def test_images(save, name, array):
    path = save(name, array)
    check(open_image(path), read_input(path))


def test_palettes_give_indices_or_colours(tmp_path):
    picture = Image.fromarray(IDS8)
    picture.putpalette([255 - v // 3 for v in range(768)])
    picture.save(tmp_path / "p.png")
    check(open_map(tmp_path / "p.png"), IDS8)
    check(open_image(tmp_path / "p.png"), read_input(tmp_path / "p.png"))


def test_an_array_of_any_size_is_mapped(save, monkeypatch):
    path = save("ids.npy", IDS32)
    monkeypatch.setenv("HDGAN_MAX_GIB", SMALL_LIMIT)
    with pytest.raises(DataError, match="more than the limit"):
        read_map(path)
    check(open_map(path), IDS32)


def test_other_files_are_bounded(save, monkeypatch):
    path = save("ids.png", IDS8)
    monkeypatch.setenv("HDGAN_MAX_GIB", SMALL_LIMIT)
    with pytest.raises(DataError, match=r"ids\.png is an image of 67x45 pixels, .* more than the limit"):
        open_map(path)


@pytest.mark.parametrize("window", [(0, 0, 0, 1), (3, 2, 0, 1), (-1, 2, 0, 1), (0, 46, 0, 1), (0, 1, 5, 68)])
def test_a_window_outside_of_the_image(save, window):
    with (
        open_map(save("ids.npy", IDS8)) as windows,
        pytest.raises(ValueError, match=r"ids\.npy: no window .* in 45x67"),
    ):
        windows.read(*window)


@pytest.mark.parametrize(
    ("name", "array", "read", "message"),
    [
        ("a.npy", RGB, open_map, "this label map has mode uint8 with 3 channels"),
        ("a.npy", RGB / 2, open_map, "this label map has mode float64"),
        ("a.npy", IDS32, open_image, "input of type int32; save uint8, uint16, or float32"),
        ("a.jpg", IDS8, open_map, "this label map is JPEG, which does not keep ids exactly"),
        ("a.npy", np.zeros(3), open_map, r"array of shape \(3,\); save \[H, W\]"),
    ],
)
def test_what_cannot_be_a_map_or_an_image(save, name, array, read, message):
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read(save(name, array))


def test_numbers_are_checked_where_they_are_read(save):
    ids, values = IDS32.astype(np.int64), RGB.astype(np.float32)
    ids[20, 30], values[20, 30, 1] = 2**31, np.nan
    for windows, message in (
        (open_map(save("ids.npy", ids), "instance map"), "ids from 2147483648 to 2147483648 do not fit"),
        (open_image(save("floats.npy", values)), "input contains nan or inf"),
    ):
        windows.read(0, 20, 0, WIDTH)
        with pytest.raises(DataError, match=message):
            windows.read(20, 21, 30, 31)


@pytest.mark.parametrize("read", [open_map, open_image])
@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.png", "a.zarr"])
def test_a_missing_file(tmp_path, read, name):
    with pytest.raises(DataError, match=f"{name} does not exist"):
        read(tmp_path / name)


def test_a_folder(tmp_path):
    with pytest.raises(DataError, match="is a folder, not a file"):
        open_map(tmp_path)


def test_damaged_files(save):
    for name in ("a.npy", "a.tif", "a.png"):
        path = save(name, IDS8)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            open_map(path)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As if the libraries of huge images were not installed."""
    monkeypatch.setattr("hdgan.files.slides.find_spec", lambda name: None)
    return lambda: None


@pytest.mark.usefixtures("without")
def test_small_tiffs_need_no_library(save, tmp_path):
    check(open_map(save("ids.tif", IDS32)), IDS32)
    tiles = tmp_path / "tiles.tif"
    tiles.write_bytes(writers.tiff(IDS8[:16, :32], 8, tile=True))
    check(open_map(tiles), IDS8[:16, :32])


@pytest.mark.usefixtures("without")
def test_libraries_that_are_missing(save, tmp_path, monkeypatch):
    path = save("ids.tif", IDS8)
    monkeypatch.setenv("HDGAN_MAX_GIB", SMALL_LIMIT)
    with pytest.raises(
        ConfigError, match=r'more than the limit .*by windows, install .*`pip install -e "\.\[slides\]"`'
    ):
        open_map(path)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ConfigError, match=r'reading .*a\.zarr needs zarr: .*`pip install -e "\.\[slides\]"`'):
        open_map(tmp_path / "a.zarr")
