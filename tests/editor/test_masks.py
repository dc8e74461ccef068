from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import cKDTree

from hdgan.editor import masks
from hdgan.editor.masks import polygon_mask, stroke_mask, thinned
from hdgan.errors import ConfigError

SIZE = (20, 10)


def test_a_polygon_is_filled() -> None:
    mask = polygon_mask([(2.5, 1.5), (8.5, 1.5), (8.5, 5.5), (2.5, 5.5)], SIZE)
    expected = np.zeros((10, 20), bool)
    expected[1:6, 2:9] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool


def test_a_polygon_has_three_corners_at_least() -> None:
    with pytest.raises(ConfigError, match="2 corners"):
        polygon_mask([(1, 1), (2, 2)], SIZE)


def test_a_stroke_has_one_point_at_least() -> None:
    with pytest.raises(ConfigError, match="no points"):
        stroke_mask([], 4, SIZE)


def test_masks_are_clipped_to_the_image() -> None:
    assert polygon_mask([(-50, -50), (500, -50), (500, 500), (-50, 500)], SIZE).all()
    assert not stroke_mask([(-50, -50)], 4, SIZE).any()


@pytest.mark.parametrize(("width", "pixels"), [(1, 1), (3, 9), (5, 21), (8, 49)])
def test_a_click_leaves_a_round_dot(width: int, pixels: int) -> None:
    mask = stroke_mask([(10.5, 5.5)], width, SIZE)
    assert mask[5, 10]
    assert mask.sum() == pixels
    np.testing.assert_array_equal(mask[:, 1:], mask[:, :0:-1])


def test_the_smallest_brush_covers_a_pixel_anywhere() -> None:
    for x in np.linspace(3, 5, 9):
        assert 1 <= stroke_mask([(x, 4.99)], 0, SIZE).sum() <= 4


def test_a_stroke_is_as_wide_as_its_brush_and_has_no_gaps() -> None:
    mask = stroke_mask([(3.5, 5.5), (16.5, 5.5)], 5, SIZE)
    assert (mask[:, 4:16].sum(axis=0) == 5).all()
    slanted = stroke_mask([(2.5, 1.5), (10.5, 8.5), (17.5, 2.5)], 3, SIZE)
    assert slanted[:, 2:18].any(axis=0).all()


def test_a_point_of_a_polygon_is_one_corner() -> None:
    with pytest.raises(ConfigError, match="has 1 corner: click"):
        polygon_mask([(1, 1)], SIZE)


def covered_by(way: np.ndarray, radius: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that a disc covers along a path, found by the distance to many points of the path."""
    steps = np.linspace(0, 1, 200)[:, None]
    points = np.concatenate([start + steps * (end - start) for start, end in pairwise([way[0], *way])])
    middles = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1).reshape(-1, 2)
    distance, _ = cKDTree(points).query(middles)
    return (distance <= radius).reshape(size[::-1])


@pytest.mark.parametrize("width", [2, 5, 31])
def test_a_stroke_is_the_path_of_a_disc_to_half_a_pixel(width: int) -> None:
    size, random = (60, 40), np.random.default_rng(width)
    ways = [
        random.uniform(-10, 60, (7, 2)),  # back and forth, also outside
        np.array([[30.0, 20.0]]),
        np.array([[5.0, 5.0], [50.0, 5.0], [50.0, 35.0], [5.0, 35.0]]),
        np.cumsum(random.normal(0, 0.3, (800, 2)), axis=0) + 25,  # a hand that hardly moves
    ]
    for way in ways:
        mask = stroke_mask(way.tolist(), width, size)
        assert (mask | ~covered_by(way, width / 2 - 0.5, size)).all()
        assert (~mask | covered_by(way, width / 2 + 0.5, size)).all()


def test_a_long_stroke_is_thinned() -> None:
    turns = np.linspace(0, 40 * np.pi, 200_000)
    slow = np.stack([500 + turns * np.cos(turns), 250 + turns * np.sin(turns)], axis=1)
    thin = thinned(slow)
    assert len(thin) < len(slow) / 2
    np.testing.assert_array_equal(thin[[0, -1]], slow[[0, -1]])
    assert cKDTree(thin).query(slow)[0].max() <= 0.25


def test_the_cost_of_a_scribble_is_that_of_its_area(monkeypatch: pytest.MonkeyPatch) -> None:
    points, size = np.random.default_rng(0).uniform(0, (256, 128), (100_000, 2)), (256, 128)
    drawn = []
    cover = masks._cover
    monkeypatch.setattr(masks, "_cover", lambda ends, *rest: drawn.append(len(ends)) or cover(ends, *rest))
    scribble = stroke_mask(points.tolist(), 9, size)
    assert scribble.mean() > 0.999
    assert sum(drawn) < len(points) / 5

    few = points[:3000].tolist()
    monkeypatch.setattr(masks, "_CHUNK_ROWS", 10**9)
    at_once = stroke_mask(few, 9, size)
    monkeypatch.setattr(masks, "_CHUNK_ROWS", 10**4)
    np.testing.assert_array_equal(stroke_mask(few, 9, size), at_once)
