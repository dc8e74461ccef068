"""Windows of tiled images, and how often their tiles are decoded."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.data import tiles
from hdgan.data.tiles import TiledImage

Place = tuple[int, int]


def tiled(image: np.ndarray, tile: Place) -> tuple[TiledImage, Counter[Place]]:
    """An image [H, W, C] in tiles, and a count of the tiles that are decoded."""
    decoded: Counter[Place] = Counter()

    def decode(row: int, column: int) -> np.ndarray:
        decoded[row, column] += 1
        top, left = row * tile[0], column * tile[1]
        return image[top : top + tile[0], left : left + tile[1]].copy()

    height, width, channels = image.shape
    return TiledImage((height, width, channels), tile, image.dtype, decode), decoded


def numbers(height: int, width: int, channels: int = 1) -> np.ndarray:
    return np.arange(height * width * channels, dtype=np.uint32).reshape(height, width, channels)


def scan(height: int, width: int, side: int, halo: int) -> list[list[tuple[int, int, int, int]]]:
    """Rows of windows with halos, from left to right and from top to bottom."""
    return [
        [
            (max(top - halo, 0), min(top + side + halo, height), max(left - halo, 0), min(left + side + halo, width))
            for left in range(0, width, side)
        ]
        for top in range(0, height, side)
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_window_is_the_part_of_the_image(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    tile = data.draw(st.integers(1, 45)), data.draw(st.integers(1, 45))
    whole = numbers(height, width, data.draw(st.integers(1, 3)))
    image, _ = tiled(whole, tile)
    for _ in range(3):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
        assert np.array_equal(image.read(top, bottom, left, right), whole[top:bottom, left:right])


@pytest.mark.parametrize("tile", [(8, 8), (3, 90), (90, 3), (1, 90)])
def test_a_tile_is_decoded_once_for_each_row_of_windows(monkeypatch, tile):
    """Also if it is as wide as the image, and more tiles than the cache has room for are needed by a single window."""
    monkeypatch.setattr(tiles, "CACHE_BYTES", 24 * 24 * 4)
    whole = numbers(70, 90)
    image, decoded = tiled(whole, tile)
    for row in scan(70, 90, side=16, halo=4):
        decoded.clear()
        for window in row:
            top, bottom, left, right = window
            assert np.array_equal(image.read(*window), whole[top:bottom, left:right])
        needed = {
            (y, x)
            for y in range(row[0][0] // tile[0], (row[0][1] - 1) // tile[0] + 1)
            for x in range(-(-90 // tile[1]))
        }
        assert set(decoded) <= needed
        assert set(decoded.values()) == {1}


def test_only_the_tiles_of_a_window_are_decoded():
    image, decoded = tiled(numbers(100, 100), (10, 10))
    image.read(19, 21, 30, 40)
    assert set(decoded) == {(1, 3), (2, 3)}


def test_the_tiles_that_were_used_longest_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(tiles, "CACHE_BYTES", 3 * 10 * 10 * 4)
    image, decoded = tiled(numbers(10, 50), (10, 10))

    def use(column: int) -> int:
        image.read(0, 10, column * 10, column * 10 + 10)
        return decoded[0, column]

    assert [use(column) for column in (0, 1, 2, 0, 3, 0, 1)] == [1, 1, 1, 1, 1, 1, 2]


def test_a_window_keeps_no_more_than_the_limit_on_memory(monkeypatch):
    monkeypatch.setattr(tiles, "CACHE_BYTES", 0)
    monkeypatch.setenv("HDGAN_MAX_GIB", str(2 * 400 / 2**30))
    image, decoded = tiled(numbers(10, 50), (10, 10))
    for _ in range(2):
        assert np.array_equal(image.read(0, 10, 0, 50), numbers(10, 50))
    assert set(decoded.values()) == {2}


def test_a_tile_of_another_shape_is_an_error():
    image = TiledImage((4, 4, 1), (4, 4), np.dtype(np.uint8), lambda row, column: np.zeros((1, 4, 1), np.uint8))
    with pytest.raises(ValueError, match=r"row 0 and column 0 has the shape \(1, 4, 1\)"):
        image.read(0, 4, 0, 4)
