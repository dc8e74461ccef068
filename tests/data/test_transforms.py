from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hdgan.data import SizeConfig, apply_to_input, apply_to_map, apply_to_photo, sample_geometry
from hdgan.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (SizeConfig(), (31, 17)),
        (SizeConfig(width=62), (62, 34)),
        (SizeConfig(width=10), (10, 5)),
        (SizeConfig(height=34), (62, 34)),
        (SizeConfig(width=20, height=20), (20, 20)),
        (SizeConfig(crop_width=7), (7, 7)),
        (SizeConfig(crop_height=7), (7, 7)),
        (SizeConfig(width=62, crop_width=33, crop_height=5), (33, 5)),
    ],
)
def test_size(config, size):
    geometry = sample_geometry((31, 17), config, np.random.default_rng(1), flip=True)
    assert geometry.size == size
    assert apply_to_map(np.zeros((17, 31), np.int32), geometry).shape == size[::-1]
    assert apply_to_photo(Image.new("RGB", (31, 17)), geometry).shape == (*size[::-1], 3)
    assert apply_to_input(np.zeros((17, 31, 5), np.uint16), geometry).shape == (*size[::-1], 5)


def test_crop_larger_than_the_picture():
    with pytest.raises(
        DataError,
        match=r"crop of 32x8 is larger than the image, which is 31x17 .*set a smaller stages\.STAGE\.size\.crop",
    ):
        sample_geometry((31, 17), SizeConfig(crop_width=32, crop_height=8))


def test_evaluation_takes_the_centre():
    geometry = sample_geometry((10, 6), SizeConfig(crop_width=4), flip=True)
    assert (geometry.corner, geometry.flip) == ((3, 1), False)


def test_random_crop_reaches_every_corner_and_flips_half():
    drawn = [sample_geometry((6, 5), SizeConfig(crop_width=4), np.random.default_rng(i), flip=True) for i in range(200)]
    assert {geometry.corner for geometry in drawn} == {(left, top) for left in range(3) for top in range(2)}
    assert 60 < sum(geometry.flip for geometry in drawn) < 140
    assert not any(sample_geometry((6, 5), SizeConfig(), np.random.default_rng(i)).flip for i in range(20))


@pytest.mark.parametrize("scaled", [(31, 17), (62, 34), (15, 9), (47, 23)])
def test_nearest_equals_pillow_and_keeps_large_ids(scaled):
    ids = RNG.integers(-(2**31), 2**31 - 1, (17, 31), dtype=np.int32)
    geometry = sample_geometry((31, 17), SizeConfig(width=scaled[0], height=scaled[1]))
    expected = np.asarray(Image.fromarray(ids).resize(scaled, Image.Resampling.NEAREST))
    assert (apply_to_map(ids, geometry) == expected).all()


def test_map_that_is_not_scaled_is_a_view():
    ids = RNG.integers(0, 99, (17, 31), dtype=np.int32)
    for seed in range(4):
        geometry = sample_geometry((31, 17), SizeConfig(crop_width=5), np.random.default_rng(seed), flip=True)
        (left, top), part = geometry.corner, apply_to_map(ids, geometry)
        assert np.shares_memory(part, ids)
        expected = ids[top : top + 5, left : left + 5]
        assert (part == (expected[:, ::-1] if geometry.flip else expected)).all()


@pytest.mark.parametrize("filter", ["bicubic", "lanczos"])
@pytest.mark.parametrize("width", [13, 50])
def test_cropping_while_scaling_equals_cropping_after(filter, width):
    photo = Image.fromarray(RNG.integers(0, 255, (17, 31, 3), dtype=np.uint8))
    whole = sample_geometry((31, 17), SizeConfig(width=width))
    part = sample_geometry((31, 17), SizeConfig(width=width, crop_width=6), np.random.default_rng(3), flip=True)
    (left, top), (w, h) = part.corner, part.size
    expected = apply_to_photo(photo, whole, filter)[top : top + h, left : left + w]
    expected = expected[:, ::-1] if part.flip else expected
    assert (apply_to_photo(photo, part, filter) == expected).all()
    values = np.asarray(photo)
    assert (apply_to_photo(values, part, filter) == expected).all()
    for dtype in (np.uint8, np.uint16, np.float32):
        scaled = apply_to_input(values.astype(dtype), whole, filter)[top : top + h, left : left + w]
        assert (apply_to_input(values.astype(dtype), part, filter) == (scaled[:, ::-1] if part.flip else scaled)).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [None, 24, 96])
def test_map_photo_and_input_stay_aligned(seed, width):
    blocks = RNG.integers(0, 2, (6, 8)).astype(np.uint8)
    ids = np.kron(blocks, np.ones((8, 8), np.uint8))
    photo = Image.fromarray(np.dstack([ids * 200] * 3))
    values = np.dstack([ids.astype(np.uint16) * 60000, ids.astype(np.uint16) * 30000])
    size = SizeConfig(width=width, crop_width=20, crop_height=11)
    geometry = sample_geometry((64, 48), size, np.random.default_rng(seed), flip=True)
    label = apply_to_map(ids, geometry)
    from_photo = apply_to_photo(photo, geometry)[..., 0] > 100
    from_input = apply_to_input(values, geometry)[..., 1] > 15000
    # Where pixels straddle blocks, filters and nearest pixel may differ.
    assert (from_photo == label).mean() > 0.97
    assert (from_input == label).mean() > 0.97
    assert (from_photo == from_input).all()
    if width is None:
        assert (from_photo == label).all()


def test_input_keeps_type_and_range():
    deep = RNG.integers(0, 2, (8, 8, 2)).astype(np.uint16) * 65535
    geometry = sample_geometry((8, 8), SizeConfig(width=20))
    out = apply_to_input(deep, geometry)
    assert out.dtype == np.uint16
    assert (out.min(), out.max()) == (0, 65535)
    assert apply_to_input((deep > 0).astype(np.uint8), geometry).dtype == np.uint8
    assert apply_to_input(deep.astype(np.float32), geometry).dtype == np.float32


def test_input_of_eight_bits_is_resampled_like_a_photo():
    values = RNG.integers(0, 255, (9, 9, 3), dtype=np.uint8)
    geometry = sample_geometry((9, 9), SizeConfig(width=5))
    assert (apply_to_input(values, geometry) == apply_to_photo(Image.fromarray(values), geometry)).all()


def test_jitter_is_for_training() -> None:
    size = SizeConfig(width=20, height=12, jitter=5)
    assert size.training == SizeConfig(width=25, height=17, crop_width=20, crop_height=12)
    assert size.whole == SizeConfig(width=20, height=12)
    plain = SizeConfig(width=20, crop_width=7)
    assert (plain.training, plain.whole) == (plain, SizeConfig(width=20))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"jitter": 5}, "jitter is 5, which needs a width and height"),
        ({"jitter": 5, "width": 9}, "which needs a width and height"),
        ({"jitter": 5, "width": 9, "height": 9, "crop_width": 4}, "excludes a crop"),
    ],
)
def test_jitter_that_cannot_be(options: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SizeConfig(**options)
