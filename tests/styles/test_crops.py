"""Examples of clusters are cropped from the photos that were encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdgan.data import SizeConfig, read_map, read_photo
from hdgan.errors import DataError
from hdgan.inference.encoding import open_trained_model
from hdgan.styles import Example, StyleBank
from hdgan.styles.crops import SIZE, Cropper, crop


@pytest.fixture(scope="module")
def cropper(styled: Path) -> Cropper:
    return Cropper(open_trained_model(styled, device="cpu").data.reference(SizeConfig()))


@pytest.fixture
def bank(styled: Path) -> StyleBank:
    return StyleBank.load(open_trained_model(styled, device="cpu").bank_file)


def test_a_crop_shows_the_instance_in_colour_and_the_rest_in_grey() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[..., 0] = 200
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:40] = True
    picture = np.asarray(crop(photo, mask, (0.5, 0.25, 40 / 60, 0.5)))
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture[SIZE // 2, SIZE // 2].tolist() == [200, 0, 0]
    assert np.ptp(picture[0, 0].astype(int)) < 15
    coloured = (picture[..., 0].astype(int) - picture[..., 1] > 100).mean()
    assert coloured == pytest.approx((10 / 12) ** 2, abs=0.05)


def test_a_crop_stays_inside_the_picture() -> None:
    photo = np.full((20, 50, 3), 90, np.uint8)
    whole = np.ones((20, 50), bool)
    for box in ((0, 0, 1, 1), (0.9, 0, 1, 0.2), (0.5, 0.5, 0.5, 0.5)):
        assert np.unique(np.asarray(crop(photo, whole, box))).tolist() == [90]


def test_examples_are_cropped_from_their_photos(cropper: Cropper, bank: StyleBank, dataset: Path) -> None:
    example = bank.clusters[2][0].examples[0]
    picture = cropper.crops([example])[example]
    photo = np.asarray(read_photo(dataset / f"train_img/{example.stem}_img.png"))
    ids = read_map(dataset / f"train_inst/{example.stem}_inst.tif")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(crop(photo, ids == example.id, example.box)))
    assert bank.clusters[2][0].thumbnail is not None
    np.testing.assert_array_equal(np.asarray(bank.clusters[2][0].thumbnail), np.asarray(picture))
    with pytest.raises(DataError, match="the encoded image gone is no longer among the training images"):
        cropper.crops([Example("gone", 1, (0, 0, 1, 1))])


def test_photos_of_another_kind_are_shown_in_8_bits(stored_run: Path) -> None:
    dataset = open_trained_model(stored_run, device="cpu").data.reference(SizeConfig())
    ids = dataset[0]["ids"].unique()
    (image,) = Cropper(dataset).crops([Example("s0", int(ids[0]), (0.0, 0.0, 1.0, 1.0))]).values()
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
    assert len(image.getcolors(SIZE * SIZE) or ()) > 50
