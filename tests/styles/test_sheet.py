"""Sheets show every cluster with its examples, cut from the pictures that were encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import SizeConfig, read_map, read_photo
from hdgan.errors import ConfigError, DataError
from hdgan.inference.encoding import open_source
from hdgan.styles import Cluster, Example, StyleBank
from hdgan.styles.sheet import SIZE, Cutter, crop, write_sheet


@pytest.fixture(scope="module")
def cutter(styled: Path) -> Cutter:
    return Cutter(open_source(styled, device="cpu").data.reference(SizeConfig()))


@pytest.fixture
def bank(styled: Path) -> StyleBank:
    return StyleBank.load(open_source(styled, device="cpu").bank_file)


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


def test_examples_are_cut_from_their_pictures(cutter: Cutter, bank: StyleBank, dataset: Path) -> None:
    example = bank.clusters[2][0].examples[0]
    picture = cutter.cut([example])[example]
    photo = np.asarray(read_photo(dataset / f"train_img/{example.stem}_img.png"))
    ids = read_map(dataset / f"train_inst/{example.stem}_inst.tif")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(crop(photo, ids == example.id, example.box)))
    assert bank.clusters[2][0].thumbnail is not None
    np.testing.assert_array_equal(np.asarray(bank.clusters[2][0].thumbnail), np.asarray(picture))
    with pytest.raises(DataError, match="the training pictures have no gone"):
        cutter.cut([Example("gone", 1, (0, 0, 1, 1))])


def test_a_sheet_has_a_row_for_each_cluster(cutter: Cutter, bank: StyleBank, tmp_path: Path) -> None:
    write_sheet(bank, cutter, tmp_path / "sheet.html", ("ground", "sky <&>"), examples=2)
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    clusters = [cluster for there in bank.clusters.values() for cluster in there]
    assert text.count('<div class="cluster">') == len(clusters)
    assert text.count("data:image/jpeg;base64,") == sum(min(2, len(cluster.examples)) for cluster in clusters)
    assert "<h2>sky &lt;&amp;&gt;</h2>" in text
    assert "<h2>class 2</h2>" in text
    assert "http" not in text
    write_sheet(bank, cutter, tmp_path / "sheet.png", examples=3)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width >= 3 * SIZE
        assert image.height >= len(clusters) * SIZE


def test_sheets_that_cannot_be_made_are_refused(cutter: Cutter, bank: StyleBank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sheet\.pdf must end in \.html or \.png"):
        write_sheet(bank, cutter, tmp_path / "sheet.pdf")
    bare = StyleBank({1: (Cluster(np.zeros(2, np.float32)),)}, {}, np.zeros(2, np.float32))
    with pytest.raises(ConfigError, match="name no examples"):
        write_sheet(bare, cutter, tmp_path / "sheet.png")
