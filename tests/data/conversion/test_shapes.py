"""Drawing shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.data.conversion.shapes import (
    BitmapArea,
    BoxArea,
    DotsArea,
    DrawnShape,
    PolygonArea,
    StrokeArea,
    decode_runs,
    draw_maps,
    ellipse,
)
from hdgan.errors import DataError

SIZE = 40, 30
COORDINATES = st.floats(-25, 90, allow_nan=False)
POINTS = st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=7)


def drawn(area: object, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The pixels of a shape [H, W]; none where it lies outside."""
    shape = DrawnShape("car", area, "shape")
    try:
        return draw_maps([shape], [1], size, frozenset(), 1000).label > 0
    except DataError:
        return np.zeros((size[1], size[0]), bool)


@settings(max_examples=40, deadline=None)
@given(POINTS)
def test_what_lies_outside_changes_nothing_inside(points) -> None:
    """A shape in an image is the part of the same shape in a larger image."""
    for area, moved in (
        (PolygonArea(points), PolygonArea([(x + 100, y + 100) for x, y in points])),
        (DotsArea(points, 5), DotsArea([(x + 100, y + 100) for x, y in points], 5)),
    ):
        whole = drawn(moved, (300, 300))
        assert np.array_equal(drawn(area), whole[100 : 100 + SIZE[1], 100 : 100 + SIZE[0]])


@pytest.mark.parametrize(
    ("corners", "columns", "rows"),
    [
        ((2, 3, 5, 7), (2, 5), (3, 7)),
        ((5, 7, 2, 3), (2, 5), (3, 7)),
        ((2.5, 3.5, 4.5, 6.5), (2, 5), (3, 7)),
        ((2.2, 3.2, 2.4, 3.4), (2, 3), (3, 4)),
        ((4, 4, 4, 4), (4, 5), (4, 5)),
        ((-3, -3, 2, 2), (0, 2), (0, 2)),
        ((38, 28, 99, 99), (38, 40), (28, 30)),
    ],
)
def test_a_box_covers_the_pixels_that_it_touches(corners, columns, rows) -> None:
    expected = np.zeros((30, 40), bool)
    expected[rows[0] : rows[1], columns[0] : columns[1]] = True
    assert np.array_equal(drawn(BoxArea(*corners)), expected)


def test_a_bitmap_is_clipped() -> None:
    mask = np.ones((4, 4), bool)
    assert int(drawn(BitmapArea(-2, -1, mask)).sum()) == 6
    assert int(drawn(BitmapArea(39, 29, mask)).sum()) == 1
    assert not drawn(BitmapArea(40, 0, mask)).any()
    assert not drawn(BitmapArea(-4, 0, mask)).any()


def test_an_ellipse_is_symmetric() -> None:
    pixels = drawn(ellipse((20.5, 15.5), (10, 5)))
    y, x = np.argwhere(pixels).T
    assert (x.min(), x.max(), y.min(), y.max()) == (10, 30, 10, 20)
    assert np.array_equal(pixels[:, 10:31], pixels[:, 30:9:-1])
    assert np.array_equal(pixels[10:21], pixels[20:9:-1])
    assert np.pi * 50 < int(pixels.sum()) < np.pi * 11 * 6


def test_a_stroke_has_its_width() -> None:
    pixels = drawn(StrokeArea([(5, 10), (30, 10)], 4))
    assert pixels[:, 15].sum() == 4
    assert int(drawn(DotsArea([(8, 8)], 1)).sum()) == 1
    assert int(drawn(DotsArea([(8, 8)], 2)).sum()) == 4


def test_runs() -> None:
    assert decode_runs([1, 2, 3], 3, 2).tolist() == [[False, True, True], [False, False, False]]
    assert decode_runs([0, 4], 2, 2).all()
    for runs in ([3], [5], [-1, 5], [], [2**62] * 4 + [4], [2**63 - 1] * 2 + [6], [2**64]):
        with pytest.raises(ValueError, match="not 2x2"):
            decode_runs(runs, 2, 2)


def test_hidden_shapes_keep_their_number() -> None:
    shapes = [DrawnShape("car", BoxArea(0, 0, 4, 4), "first"), DrawnShape("car", BoxArea(0, 0, 6, 6), "second")]
    maps = draw_maps(shapes, [2, 2], (8, 8), frozenset(), 1000)
    assert maps.ids is not None
    assert np.unique(maps.ids).tolist() == [0, 2001]
