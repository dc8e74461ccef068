from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import DataConfig, SizeConfig, find_pairs
from hdgan.data.quick_check import QuickReport, quick_check
from hdgan.errors import DataError


def quick(root: Path, n_labels: int = 3, **options) -> QuickReport:
    config = DataConfig(root=root)
    return quick_check(find_pairs(config, "train"), config, n_labels, **options)


def test_quick_check_of_a_clean_set(scenes):
    assert quick(scenes).warnings == ()


def test_quick_check_warns_of_orphans(scenes, save):
    save("train_img/d.png", np.zeros((4, 6, 3), np.uint8))
    (warning,) = quick(scenes).warnings
    assert warning.startswith("1 name of train lacks a partner and will not be used, for example ")


def test_quick_check_finds_what_headers_tell(scenes, save):
    save("train_inst/b.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match=r"b\.png is 6x4, but .*b\.png is 5x4"):
        quick(scenes, full=1)
    save("train_inst/b.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"b\.png: this instance map has mode RGB"):
        quick(scenes, full=1)


def test_quick_check_decodes_the_first_and_the_last_pair(scenes, save):
    save("train_label/c.png", np.full((4, 6), 7, np.uint8))
    with pytest.raises(DataError, match=r"c\.png holds label 7"):
        quick(scenes, full=2)


def test_quick_check_counts_further_faults(scenes, spoil):
    spoil()
    with pytest.raises(
        DataError,
        match=r"cannot be read .*\(at least \d more: list all with hdgan data check \S+ --phase train --n-labels 3\)",
    ):
        quick(scenes)


def test_quick_check_tries_the_crop(scenes):
    with pytest.raises(DataError, match=r"a\.png: the crop of 5x5 is larger than the picture"):
        quick(scenes).require_size(SizeConfig(crop_width=5))


def test_quick_check_of_sizes_in_one_batch(scenes, save):
    for part in ("label", "inst", "img"):
        save(f"train_{part}/d.png", np.zeros((5, 7), np.uint8))
    report = quick(scenes)
    report.require_size(SizeConfig(), batch=1)
    report.require_size(SizeConfig(crop_width=4), batch=2)
    with pytest.raises(
        DataError,
        match=r"a is 6x4 and d is 7x5 in one batch; set stages\.STAGE\.size\.width and stages\.STAGE\.size\.height, or",
    ):
        report.require_size(SizeConfig(), batch=2)


def test_quick_check_warns_of_photos_that_are_turned(save, tmp_path):
    save("train_label/a.png", np.zeros((6, 4), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    save("train_img/a.jpg", np.zeros((4, 6, 3), np.uint8), exif=exif)
    (warning,) = quick(tmp_path).warnings
    assert warning.startswith("1 photo of train will be turned upright by the EXIF orientation, for example ")
    assert warning.endswith(str(tmp_path / "train_img" / "a.jpg"))


def test_quick_check_finds_an_input_of_other_channels(save, tmp_path):
    for i in range(9):
        save(f"train_A/{i}.png", np.zeros((4, 6, 4 if i == 3 else 3), np.uint8))
        save(f"train_B/{i}.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"3\.png has 4 channels, others 3; save all inputs alike \(list all with"):
        quick(tmp_path, 0)
    save("train_A/3.png", np.zeros((4, 6, 3), np.uint8))
    assert quick(tmp_path, 0).channels == 3


@pytest.mark.parametrize(
    ("name", "photo", "message"),
    [
        ("b.npy", np.zeros((4, 6), np.uint8), "a photo must be a picture, not .npy"),
        ("b.tif", np.zeros((4, 6), np.float32), "this photo has mode F; save it with 8 or 16 bits"),
    ],
)
def test_quick_check_finds_photos_that_cannot_be_read(scenes, save, name, photo, message):
    (scenes / "train_img/b.png").unlink()
    save(f"train_img/{name}", photo)
    with pytest.raises(DataError, match=message):
        quick(scenes, full=1)


def test_quick_check_finds_halves_of_different_width(save, tmp_path):
    save("train/a.png", np.zeros((4, 12, 3), np.uint8))
    save("train/b.png", np.zeros((4, 13, 3), np.uint8))
    with pytest.raises(DataError, match=r"b\.png is 13 pixels wide, which has no two equal halves"):
        quick(tmp_path, 0, full=1)
