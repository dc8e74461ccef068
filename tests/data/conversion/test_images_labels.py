"""Folders of photos and of label maps."""

from __future__ import annotations

import numpy as np
import pytest

from hdgan.data.conversion.colors import count_colors
from hdgan.errors import ConfigError, DataError

PHOTO = np.zeros((4, 6, 3), np.uint8)


def label_map(seed: int, most: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, (4, 6)).astype(dtype)


@pytest.mark.parametrize(
    ("label", "photo", "inst"),
    [
        ("labels/train", "images/train", "instances/train"),
        ("train/masks", "train/imgs", "train/instances"),
        ("annotations/training", "images/training", "inst/training"),
        ("train_label", "train_img", "train_inst"),
    ],
)
def test_arrangements(save, convert, maps, label, photo, inst) -> None:
    ids = label_map(2, 70_000, np.int32)
    save(f"source/{label}/city/a.png", label_map(1))
    save(f"source/{inst}/city/a.tif", ids)
    save(f"source/{photo}/city/a.jpg", PHOTO)
    report = convert()
    assert report.summary.samples == {"train": 1}
    assert report.summary.instances
    found = maps("train/city/a")
    assert np.array_equal(found[0], label_map(1))
    assert np.array_equal(found[1], ids)


def test_labels_and_ids_keep_their_numbers(save, convert, maps, tmp_path) -> None:
    wide, ids = label_map(1, 700, np.uint16), label_map(2, 60_000, np.uint16)
    save("source/labels/a.png", wide)
    save("source/instances/a.png", ids)
    save("source/images/a.png", PHOTO)
    convert(val_fraction=0.0)
    assert (tmp_path / "out/train_inst/a.png").is_file()
    assert np.array_equal(maps("train/a")[0], wide)
    assert np.array_equal(maps("train/a")[1], ids)


def test_a_label_far_above_the_others_is_no_class(save, convert) -> None:
    label = label_map(1)
    label[0] = 255
    save("source/labels/a.png", label)
    save("source/images/a.png", PHOTO)
    report = convert(val_fraction=0.0)
    assert (report.summary.n_labels, report.summary.dontcare) == (3, 255)
    assert report.spec is not None
    assert report.spec.classes == ("class 0", "class 1", "class 2")


def test_masks_are_no_labels(save, convert, maps, tmp_path) -> None:
    label = np.where(label_map(1) > 0, 255, 0).astype(np.uint8)
    save("source/labels/a.png", label)
    save("source/images/a.png", PHOTO)
    with pytest.raises(
        DataError, match="contain only 0 and 255: if 255 is a class, as in masks, convert with format c"
    ):
        convert(val_fraction=0.0)
    (tmp_path / "grey.csv").write_text("label,name,color\n0,none,#000000\n1,object,#ffffff\n")
    convert(val_fraction=0.0, format="colors", classes=tmp_path / "grey.csv")
    assert np.array_equal(maps("train/a")[0], label // 255)


def test_files_are_paired_by_name_and_those_without_partners_refused(save, convert, root) -> None:
    for name in "ab":
        save(f"source/labels/{name}_mask.png", label_map(ord(name)))
    save("source/images/b.jpg", PHOTO)
    with pytest.raises(DataError) as error:
        convert()
    assert "a_mask.png: no photo named a in" in str(error.value)
    assert "skip_unpaired leaves out what has no partner" in str(error.value)
    said: list[str] = []
    report = convert(skip_unpaired=True, say=said.append)
    assert report.summary.samples == {"train": 1}
    assert any("1 name without partners left out" in line for line in said)


def test_labels_beyond_the_classes_are_placed_and_counted(save, convert, classes) -> None:
    label = label_map(1)
    label[1, 2] = 9
    file = save("source/labels/a.png", label)
    save("source/images/a.png", PHOTO)
    with pytest.raises(DataError) as error:
        convert(classes=classes)
    assert f"{file}: label 9 (1 pixel), first at x 2, y 1, but" in str(error.value)
    assert "given.csv ends at 3" in str(error.value)
    convert(classes=classes, dontcare="9")


def test_sizes_must_agree(save, convert) -> None:
    save("source/labels/a.png", label_map(1))
    save("source/images/a.png", PHOTO[:3])
    with pytest.raises(DataError, match=r"a.png is 6x4, but .*a.png is 6x3"):
        convert()
    save("source/instances/a.png", label_map(1)[:3])
    with pytest.raises(DataError, match=r"labels.a.png is 6x4, but .*instances.a.png is 6x3"):
        convert()


def test_photos_may_lie_elsewhere(save, convert, tmp_path) -> None:
    save("source/labels/a.png", label_map(1))
    with pytest.raises(DataError, match="there is no folder of photos beside it"):
        convert()
    with pytest.raises(DataError, match=r"photos .*nowhere is not a folder: give the folder of the photos"):
        convert(photos=tmp_path / "nowhere")
    save("elsewhere/a.png", PHOTO)
    assert convert(photos=tmp_path / "elsewhere").written == 1


def test_what_is_no_source_is_refused(save, convert, root) -> None:
    save("source/things/a.png", PHOTO)
    with pytest.raises(DataError, match=r"has no known format\. Known are colors: "):
        convert()
    with pytest.raises(DataError, match="has no folder of label maps: name it labels, label, masks"):
        convert(format="images-labels")


@pytest.mark.parametrize("format", [None, "images-labels", "colors"])
def test_label_maps_of_other_endings_are_named(save, convert, classes, root, format) -> None:
    save("source/images/a.jpg", PHOTO)
    (root / "masks").mkdir()
    (root / "masks" / "a.gif").write_bytes(b"GIF89a")
    options = {"classes": classes} if format == "colors" else {}
    with pytest.raises(
        DataError, match=r"masks contains no images \(\.bmp.*\), only \.gif files; put the files there, or"
    ):
        convert(format=format, **options)
    with pytest.raises(
        DataError, match=r"masks contains no images \(.*, only \.gif files; give the folder of the label"
    ):
        count_colors(root)


def test_photos_of_other_endings_are_named(save, convert, root) -> None:
    save("source/masks/a.png", label_map(1))
    (root / "images").mkdir()
    (root / "images" / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"images contains no images \(.*, only \.gif files; put the files there"):
        convert()


@pytest.mark.parametrize("name", ["annotations/a.json", "labels/a.txt"])
def test_folders_of_unknown_annotations_are_no_label_maps(save, convert, root, name) -> None:
    save("source/images/a.jpg", PHOTO)
    (root / name).parent.mkdir()
    (root / name).write_text("{}")
    with pytest.raises(DataError, match=r"has no known format\. Known are colors: "):
        convert()


def test_options_without_effect_are_refused(save, convert) -> None:
    save("source/labels/a.png", label_map(1))
    save("source/images/a.png", PHOTO)
    with pytest.raises(ConfigError, match="nearest has no effect on a source of the format images-labels"):
        convert(nearest=3)


def test_a_class_of_no_pixels_is_chosen_by_name_or_number(save, convert, classes) -> None:
    save("source/labels/a.png", label_map(1))
    save("source/images/a.png", PHOTO)
    with pytest.raises(ConfigError, match=r"dontcare is 'sea': give the name of a class or a label .* are sky, road"):
        convert(classes=classes, dontcare="sea")
    assert convert(classes=classes, dontcare="car").summary.dontcare == 2
