from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor.shapes import polygon, stroke
from hdgan.errors import ConfigError

SIZE = (20, 10)


def test_a_polygon_is_filled() -> None:
    mask = polygon([(2.5, 1.5), (8.5, 1.5), (8.5, 5.5), (2.5, 5.5)], SIZE)
    expected = np.zeros((10, 20), bool)
    expected[1:6, 2:9] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool


def test_a_polygon_has_three_corners_at_least() -> None:
    with pytest.raises(ConfigError, match="2 corners"):
        polygon([(1, 1), (2, 2)], SIZE)


def test_a_stroke_has_one_point_at_least() -> None:
    with pytest.raises(ConfigError, match="no points"):
        stroke([], 4, SIZE)


def test_what_lies_outside_is_cut() -> None:
    assert polygon([(-50, -50), (500, -50), (500, 500), (-50, 500)], SIZE).all()
    assert not stroke([(-50, -50)], 4, SIZE).any()


@pytest.mark.parametrize(("width", "pixels"), [(1, 1), (3, 9), (5, 21), (8, 49)])
def test_a_click_leaves_a_round_dot(width: int, pixels: int) -> None:
    mask = stroke([(10.5, 5.5)], width, SIZE)
    assert mask[5, 10]
    assert mask.sum() == pixels
    np.testing.assert_array_equal(mask[:, 1:], mask[:, :0:-1])


def test_the_smallest_brush_covers_a_pixel_wherever_it_is_set() -> None:
    for x in np.linspace(3, 5, 9):
        assert 1 <= stroke([(x, 4.99)], 0, SIZE).sum() <= 4


def test_a_stroke_is_as_wide_as_its_brush_and_has_no_gaps() -> None:
    mask = stroke([(3.5, 5.5), (16.5, 5.5)], 5, SIZE)
    assert (mask[:, 4:16].sum(axis=0) == 5).all()
    slanted = stroke([(2.5, 1.5), (10.5, 8.5), (17.5, 2.5)], 3, SIZE)
    assert slanted[:, 2:18].any(axis=0).all()
