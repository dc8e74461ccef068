from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hdgan.data import Geometry, SizeConfig, apply_to_input, apply_to_map, apply_to_photo, sample_geometry
from hdgan.data.transforms import apply_geometry
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


def rotated_by(angle: float, size: tuple[int, int], **crop: int) -> Geometry:
    return replace(sample_geometry(size, SizeConfig(**crop)), angle=angle)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_quarter_turns_are_exact(angle, turns):
    ids = RNG.integers(-(2**31), 2**31 - 1, (16, 16), dtype=np.int32)
    photo = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    deep = RNG.integers(0, 65536, (16, 16, 5), dtype=np.uint16)
    geometry = rotated_by(angle, (16, 16))
    assert np.array_equal(apply_to_map(ids, geometry), np.rot90(ids, turns))
    assert np.array_equal(apply_to_photo(photo, geometry), np.rot90(photo, turns))
    assert np.array_equal(apply_to_input(deep, geometry), np.rot90(deep, turns))


def test_rotation_keeps_labels_that_exist_and_the_level_of_photos():
    labels = RNG.choice(np.array([0, 7, 70000], np.int32), (40, 60))
    geometry = rotated_by(17.5, (60, 40))
    assert set(np.unique(apply_to_map(labels, geometry))) <= {0, 7, 70000}
    for value, dtype in ((200, np.uint8), (50_001, np.uint16), (0.25, np.float32)):
        level = np.full((40, 60, 2), value, dtype)
        out = apply_to_input(level, geometry)
        assert out.dtype == dtype
        np.testing.assert_allclose(out, level, rtol=1e-6)


@pytest.mark.parametrize("angle", [-33.0, 8.0, 61.0])
@pytest.mark.parametrize("width", [None, 24, 96])
@pytest.mark.parametrize("flip", [False, True])
def test_rotated_map_photo_and_input_stay_aligned(angle, width, flip):
    blocks = RNG.integers(0, 2, (6, 8)).astype(np.uint8)
    ids = np.kron(blocks, np.ones((8, 8), np.uint8))
    photo = Image.fromarray(np.dstack([ids * 200] * 3))
    geometry = replace(rotated_by(angle, (64, 48), **({"width": width} if width else {})), flip=flip)
    label = apply_to_map(ids, geometry)
    from_photo = apply_to_photo(photo, geometry)[..., 0] > 100
    from_input = apply_to_input(np.dstack([ids.astype(np.uint16) * 60000]), geometry)[..., 0] > 30000
    # Where pixels straddle blocks, filters and nearest pixel may differ.
    assert (from_photo == label).mean() > 0.9
    assert (from_input == label).mean() > 0.9


def test_beyond_its_borders_an_image_is_mirrored():
    ids = np.arange(20 * 30, dtype=np.int32).reshape(20, 30)
    geometry = rotated_by(90, (30, 20))
    assert np.array_equal(apply_to_map(ids, geometry), np.rot90(np.pad(ids, ((5, 5), (0, 0)), "symmetric")[:, 5:25]))
    photo = np.dstack([ids.astype(np.uint16)] * 2)
    assert np.array_equal(apply_to_input(photo, geometry)[..., 1], apply_to_map(ids, geometry))


def test_a_crop_takes_its_surroundings_and_not_their_mirror_image():
    ids = np.arange(40 * 40, dtype=np.int32).reshape(40, 40)
    geometry = rotated_by(45, (40, 40), crop_width=16)
    found = apply_to_map(ids, geometry)
    for positions in (found // 40, found % 40):  # rows and columns of a square of 16, turned onto its corner
        assert (positions.min(), positions.max()) == (9, 30)
    assert len(np.unique(found)) > 200, "hardly a pixel may be seen twice"


def test_without_rotation_crops_and_flips_are_as_ever():
    size = SizeConfig(crop_width=4)
    for seed in range(20):
        plain = sample_geometry((6, 5), size, np.random.default_rng(seed), flip=True)
        turned = sample_geometry((6, 5), size, np.random.default_rng(seed), flip=True, rotate=30)
        assert plain.angle == 0
        assert -30 <= turned.angle <= 30
        assert replace(turned, angle=0.0) == plain
    assert sample_geometry((6, 5), size, rotate=30).angle == 0, "only training images are rotated"


def test_photos_of_floats_stay_in_their_range():
    edges = np.sign(RNG.uniform(-1, 1, (9, 9, 1))).astype(np.float32)
    for geometry in (sample_geometry((9, 9), SizeConfig(width=30)), rotated_by(20, (9, 9))):
        parts = apply_geometry({"input": edges, "photo": edges}, geometry, "bicubic")
        assert np.abs(parts["input"]).max() > 1, "bicubic filters overshoot"
        assert np.abs(parts["photo"]).max() == 1


def test_photos_of_any_kind_are_scaled_channel_by_channel():
    for dtype in (np.uint8, np.uint16):
        values = RNG.integers(0, np.iinfo(dtype).max, (9, 9, 6), dtype=dtype)
        geometry = sample_geometry((9, 9), SizeConfig(width=5))
        part = apply_geometry({"photo": values}, geometry, "bicubic")["photo"]
        assert np.array_equal(part, apply_to_input(values, geometry))
