from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.files.rows import bands, checked_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 12))
def test_bands_are_the_rows_in_other_portions(lengths, length):
    rows = np.arange(sum(lengths) * 2).reshape(-1, 2, 1)
    blocks = np.split(rows, np.cumsum(lengths)[:-1]) if lengths else []
    joined = list(bands(blocks, length))
    assert [len(band) for band in joined[:-1]] == [length] * (len(joined) - 1)
    assert all(0 < len(band) <= length for band in joined)
    assert np.array_equal(np.concatenate([rows[:0], *joined]), rows)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([np.zeros((2, 3, 1), np.uint8)], "2 rows for an image of 4"),
        ([np.zeros((5, 3, 1), np.uint8)], "more rows for an image of 4"),
        ([np.zeros((4, 2, 1), np.uint8)], r"a block \(4, 2, 1\) of uint8 in an image \[\., 3, 1\] of uint8"),
        ([np.zeros((4, 3, 1), np.uint16)], "a block .* of uint16"),
        ([np.zeros((4, 3), np.uint8)], r"a block \(4, 3\)"),
    ],
)
def test_rows_that_are_not_the_image(blocks, message):
    with pytest.raises(ValueError, match=message):
        list(checked_rows(iter(blocks), 4, 3, 1, "uint8"))
