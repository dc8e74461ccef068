from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hdgan.data.color_jitter import ColorJitter, apply_jitter, sample_jitter

RNG = np.random.default_rng(0)


def changed(values: np.ndarray, **factors: float) -> np.ndarray:
    jitter = ColorJitter(**{"brightness": 1.0, "contrast": 1.0, "saturation": 1.0} | factors)
    return apply_jitter({"photo": values}, jitter)["photo"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_factors_of_one_change_nothing(dtype, channels):
    values = RNG.integers(0, np.iinfo(dtype).max, (6, 8, channels), dtype=dtype, endpoint=True)
    assert np.array_equal(changed(values), values)


def test_brightness_and_saturation_are_those_of_pillow():
    values = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    brighter = np.asarray(ImageEnhance.Brightness(image).enhance(1.3)).astype(int)
    paler = np.asarray(ImageEnhance.Color(image).enhance(0.4)).astype(int)
    assert np.abs(changed(values, brightness=1.3) - brighter).max() <= 1
    assert np.abs(changed(values, saturation=0.4) - paler).max() <= 1


def test_contrast_is_changed_around_medium_grey():
    values = np.array([[[0], [27], [128], [255]]], np.uint8)
    assert changed(values, contrast=0.5).ravel().tolist() == [64, 77, 128, 191]
    assert changed(values, contrast=2.0).ravel().tolist() == [0, 0, 128, 255]


def test_8_and_16_bits_change_alike():
    values = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    factors = {"brightness": 1.2, "contrast": 0.8, "saturation": 1.1}
    deep = changed(values.astype(np.uint16) * 257, **factors)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - changed(values, **factors)).max() <= 0.51


def test_saturation_is_for_three_channels():
    values = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    assert np.array_equal(changed(values, saturation=0.0), values)


def test_maps_stay_and_both_images_change_alike():
    image = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    label = RNG.integers(0, 4, (6, 8), dtype=np.uint8)
    arrays = {"label": label, "ids": label, "input": image, "photo": image}
    result = apply_jitter(arrays, ColorJitter(0.7, 1.2, 0.9))
    assert result["label"] is label
    assert result["ids"] is label
    assert np.array_equal(result["input"], result["photo"])
    assert not np.array_equal(result["photo"], image)


def test_factors_are_drawn_from_their_range():
    drawn = [sample_jitter(0.2, np.random.default_rng(seed)) for seed in range(200)]
    for name in ("brightness", "contrast", "saturation"):
        factors = [getattr(jitter, name) for jitter in drawn]
        assert 0.8 <= min(factors) < 0.85 < 1.15 < max(factors) <= 1.2
