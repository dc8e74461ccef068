"""Inspecting datasets: what a check of every file reports, and what the quick check before training refuses."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hdgan.commands.data import print_report
from hdgan.data import DataConfig, SizeConfig, find_pairs
from hdgan.data.inspection import check_dataset, quick_check
from hdgan.data.report import PhaseReport, Requirements
from hdgan.errors import ConfigError, DataError


def printed(report) -> tuple[str, int]:
    console = Console(file=io.StringIO(), width=80)
    code = print_report(report, console)
    return console.file.getvalue(), code


def test_report_of_a_clean_set(scenes):
    seen = []
    report = check_dataset(DataConfig(root=scenes), 3, progress=lambda *state: seen.append(state))
    assert report.faults == []
    assert max(report.labels) == 2
    (phase,) = report.phases
    assert (phase.phase, phase.layout, phase.pairs) == ("train", "nvidia", 3)
    assert phase.sizes == {(6, 4): 3}
    assert phase.mean_size == (6, 4)
    assert phase.class_pixels == {0: 36, 2: 36}
    assert phase.class_images == {0: 3, 2: 3}
    assert phase.ids == [3, 4, 4]
    assert phase.agreement == pytest.approx(70 / 72)
    assert seen == [("train", done, 3) for done in (1, 2, 3)]
    text, code = printed(report)
    assert code == 0
    assert "instance ids per image: min 3, median 4, max 4" in text
    assert "instance class equals label: 97.22 % of pixels" in text
    assert "no faults; --n-labels 3 or more covers every label" in text


def test_report_names_every_fault(scenes, spoil):
    spoil()
    report = check_dataset(DataConfig(root=scenes), 3)
    orphan, photo, label, size = report.faults
    assert "d.png: no label map named d in " in orphan
    assert str(scenes / "train_img/a.png") in photo
    assert "cannot be read" in photo
    assert "b.png contains label 7, but model.n_labels is 3" in label
    assert "train_label/c.png is 6x4, but" in size
    text, code = printed(report)
    assert code == 1
    assert all(f"fault: {fault}" in text for fault in report.faults)
    assert "4 faults" in text


def test_several_faults_of_one_pair_are_all_reported(scenes, save):
    (scenes / "train_img/a.png").write_bytes(b"")
    (scenes / "train_inst/a.png").write_bytes(b"")
    assert len(check_dataset(DataConfig(root=scenes), 2).faults) == 5


def test_labels_are_only_counted_without_n_labels(scenes):
    report = check_dataset(DataConfig(root=scenes, dontcare=2))
    assert report.faults == []
    assert max(report.labels) == 0


def test_fault_of_a_phase_does_not_hide_the_others(scenes, save):
    save("test_label/x.png", np.zeros((4, 6), np.uint8))
    save("test_label/x.tif", np.zeros((4, 6), np.uint8))
    report = check_dataset(DataConfig(root=scenes))
    assert [len(phase.faults) for phase in report.phases] == [1, 0]
    assert "have the same name, x" in report.faults[0]
    assert [phase.phase for phase in check_dataset(DataConfig(root=scenes), phases=["train"]).phases] == ["train"]


def test_damaged_pixels_that_decode_are_found_by_their_checksum(scenes):
    photo = scenes / "train_img/a.png"
    content = bytearray(photo.read_bytes())
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    content[start + length] ^= 1  # the first byte of the chunk's checksum
    photo.write_bytes(content)
    with Image.open(photo) as image:
        assert np.asarray(image).shape == (4, 6, 3)  # decoding does not notice
    (fault,) = check_dataset(DataConfig(root=scenes), 3).faults
    assert f"{photo} cannot be read" in fault


def test_unknown_phase_is_a_fault(scenes):
    assert "phases of" in check_dataset(DataConfig(root=scenes), phases=["dev"]).faults[0]


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        check_dataset(DataConfig(root=tmp_path / "none"))


def test_report_of_inputs(save, tmp_path):
    for name, shape in (("a", (4, 6)), ("b", (4, 6)), ("c", (4, 6, 3))):
        save(f"train_A/{name}.png", np.zeros(shape, np.uint8))
        save(f"train_B/{name}.png", np.zeros((4, 6, 3), np.uint8))
    report = check_dataset(DataConfig(root=tmp_path), 0)
    assert report.phases[0].channels == {1: 2, 3: 1}
    assert report.faults == [
        f"{tmp_path / 'train_A' / 'c.png'} has 3 channels, but others have 1; "
        "save all inputs with the same number of channels"
    ]
    assert "input channels: 1, 3" in printed(report)[0]


def test_report_of_side_by_side_pictures(save, tmp_path):
    save("train/a.png", np.zeros((4, 12, 3), np.uint8))
    save("train/b.png", np.zeros((4, 13, 3), np.uint8))
    report = check_dataset(DataConfig(root=tmp_path))
    assert report.phases[0].sizes == {(6, 4): 1}
    assert len(report.faults) == 1
    assert "13 pixels wide" in report.faults[0]


def test_report_counts_photos_that_are_turned(save, tmp_path):
    save("train_label/a.png", np.zeros((6, 4), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    save("train_img/a.jpg", np.zeros((4, 6, 3), np.uint8), exif=exif)
    report = check_dataset(DataConfig(root=tmp_path))
    assert report.faults == []
    assert "photos turned upright by their EXIF orientation: 1" in printed(report)[0]


def test_ids_of_classes_beyond_the_labels_are_a_note(scenes, save):
    save("train_inst/b.png", np.full((4, 6), 26004, np.uint16))
    report = check_dataset(DataConfig(root=scenes), 3)
    (note,) = report.phases[0].notes
    assert note.startswith(
        f"{scenes / 'train_inst' / 'b.png'} contains id 26004 of class 26, but model.n_labels is 3; set "
    )
    assert note.endswith("of the ids, if they encode a class (1 image has such ids)")
    assert report.faults == []
    text, code = printed(report)
    assert code == 0
    assert f"note: {note}" in text
    assert check_dataset(DataConfig(root=scenes, dontcare=26), 3).phases[0].notes == []
    assert check_dataset(DataConfig(root=scenes), None).phases[0].notes == []


def test_ids_of_another_divisor_are_noted(scenes):
    (note,) = check_dataset(DataConfig(root=scenes, instance_divisor=100), None).phases[0].notes
    assert note.startswith(
        "the class of the instance id differs from the label at 53 % of pixels; set data.instance_div"
    )


def with_void(scenes, save) -> None:
    for name in "ab":
        label = np.array([[0, 0, 1, 2, 2, 255]] * 4, np.uint8)
        save(f"train_label/{name}.png", label)


@pytest.mark.parametrize("n_labels", [None, 3])
def test_a_label_far_above_the_others_is_counted_and_the_option_for_it_named(scenes, save, n_labels):
    with_void(scenes, save)
    report = check_dataset(DataConfig(root=scenes), n_labels)
    assert report.stray == [255]
    text, code = printed(report)
    assert code == (0 if n_labels is None else 1)
    assert (
        "note: label 255 is in 2 of 3 label maps, 11.1 % of pixels; if it belongs to no class, set data.dontcare 255 "
        "here, and in training --dontcare 255\n"
    ) in text
    assert text.rstrip().endswith("--n-labels 3 or more covers every label but 255")
    assert check_dataset(DataConfig(root=scenes, dontcare=255), n_labels).notes == []


def test_labels_beyond_the_classes_are_counted_one_by_one(scenes, save):
    with_void(scenes, save)
    assert [note.partition(",")[0] for note in check_dataset(DataConfig(root=scenes), 2).notes] == [
        "label 2 is in 3 of 3 label maps",
        "label 255 is in 2 of 3 label maps",
    ]


def test_what_the_model_and_the_stage_ask_is_checked(save, tmp_path):
    for name, width in (("a", 6), ("b", 8)):
        save(f"train_label/{name}.png", np.zeros((4, width), np.uint8))
    config = DataConfig(root=tmp_path)
    photos = check_dataset(config, 1).faults
    assert photos == [f"{tmp_path} has no photos for phase train: training needs pairs with photos"]
    requirements = Requirements(1, instances=True, size=SizeConfig(), batch_size=2)
    _, maps, sizes = check_dataset(config, requirements).faults
    assert "has no instance maps for phase train" in maps
    assert sizes.startswith("a is 6x4 and b is 8x4 in the same batch; set ")
    assert len(check_dataset(config, replace(requirements, size=SizeConfig(width=3, height=3))).faults) == 2
    with pytest.raises(ConfigError, match=r"batch_size is 0: give a whole number from 1"):
        Requirements(batch_size=0)


def test_a_dataset_without_the_phase_to_train_on_is_noted(scenes):
    for part in ("label", "inst", "img"):
        (scenes / f"train_{part}").rename(scenes / f"day_{part}")
    assert check_dataset(DataConfig(root=scenes), 3).notes == [
        "there is no phase train: give the phase to train on with --data.train-phase"
    ]


def test_folders_of_another_program_are_a_fault_told_once(save, tmp_path):
    for folder in ("trainA", "trainB"):
        save(f"{folder}/p.png", np.zeros((4, 6, 3), np.uint8))
    (fault,) = check_dataset(DataConfig(root=tmp_path), 0).faults
    assert "name the folders of a phase train_A and train_B" in fault


def quick(root: Path, n_labels: int = 3, **options) -> PhaseReport:
    config = DataConfig(root=root)
    return quick_check(find_pairs(config, "train"), config, n_labels, **options)


def test_quick_check_of_a_clean_set(scenes):
    assert quick(scenes).warnings == []


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
    with pytest.raises(DataError, match=r"c\.png contains label 7"):
        quick(scenes, full=2)


def test_quick_check_counts_further_faults(scenes, spoil):
    spoil()
    with pytest.raises(
        DataError,
        match=r"cannot be read .*\(at least \d more: list all with hdgan data check \S+ --phase train --n-labels 3\)",
    ):
        quick(scenes)


def test_quick_check_tries_the_crop(scenes):
    with pytest.raises(DataError, match=r"a\.png: the crop of 5x5 is larger than the image"):
        quick(scenes).require_size(SizeConfig(crop_width=5))


def test_quick_check_of_sizes_in_one_batch(scenes, save):
    for part in ("label", "inst", "img"):
        save(f"train_{part}/d.png", np.zeros((5, 7), np.uint8))
    report = quick(scenes)
    report.require_size(SizeConfig(), batch=1)
    report.require_size(SizeConfig(crop_width=4), batch=2)
    with pytest.raises(
        DataError,
        match=r"a is 6x4 and d is 7x5 in the same batch; set stages\.STAGE\.size\.width and",
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
    with pytest.raises(
        DataError,
        match=r"3\.png has 4 channels, but others have 3; save all inputs with the same number of "
        r"channels \(list all with",
    ):
        quick(tmp_path, 0)
    save("train_A/3.png", np.zeros((4, 6, 3), np.uint8))
    assert quick(tmp_path, 0).input_channels == 3


@pytest.mark.parametrize(
    ("name", "photo", "message"),
    [
        ("b.npy", np.zeros((4, 6), np.uint8), "a photo must be an image, not .npy"),
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
    with pytest.raises(DataError, match=r"b\.png is 13 pixels wide, which cannot be split into equal halves"):
        quick(tmp_path, 0, full=1)


@pytest.fixture
def deep(save, tmp_path) -> Path:
    """Two pairs with grey photos of 12 bits, stored in 16."""
    for name in "ab":
        save(f"train_label/{name}.png", np.zeros((4, 6), np.uint8))
        save(f"train_img/{name}.png", np.full((4, 6), 4095, np.uint16))
    return tmp_path


def test_photos_that_would_lose_bits_are_noted(deep):
    phase = check_dataset(DataConfig(root=deep), 1).phases[0]
    assert phase.photos == {(1, "uint16"): 2}
    assert phase.photo_kind == (3, "uint8")
    assert (
        "photos have 1 channel of 16 bits and are read as 8-bit RGB: train with --data.photo stored to keep them as "
        "they are"
    ) in phase.notes


def test_photos_that_use_a_small_part_of_16_bits_are_noted(deep, save):
    config = DataConfig(root=deep, photo="stored")
    phase = check_dataset(config, 1).phases[0]
    assert phase.photo_kind == (1, "uint16")
    assert [note for note in phase.notes if "photos" in note] == [
        "photos use numbers up to 4095 of 65535, so to the networks all of them are nearly black: scale them to the "
        "whole range"
    ]
    save("train_img/a.png", np.full((4, 6), 65535, np.uint16))
    assert not any("photos" in note for note in check_dataset(config, 1).phases[0].notes)


def test_photos_of_different_kinds_are_a_fault_where_they_are_read_as_stored(deep, save):
    save("train_img/b.png", np.zeros((4, 6, 3), np.uint8))
    message = "b.png has 3 channels of 8 bits, but another photo has 1 channel of 16 bits; save all photos alike"
    config = DataConfig(root=deep, photo="stored")
    assert [fault.endswith(message) for fault in check_dataset(config, 1).faults] == [True]
    assert check_dataset(DataConfig(root=deep), 1).faults == []
    with pytest.raises(DataError, match=r"save all photos alike \(list all with hdgan data check .* --photo stored\)"):
        quick_check(find_pairs(config, "train"), config, 1)


def test_classes_are_named(scenes):
    (scenes / "classes.csv").write_text("label,name\n0,[road]\n1,car\n2,sky\n")
    report = check_dataset(DataConfig(root=scenes), 3)
    assert report.faults == []
    text, code = printed(report)
    assert code == 0
    assert re.search(r"0 +36 +50\.000 +3 +\[road\]", text)
    assert re.search(r"1 +0 +0\.000 +0 +car", text)
    assert "no faults; train with --n-labels 3, as classes.csv says" in text


def test_classes_that_do_not_fit_are_faults(scenes):
    (scenes / "classes.csv").write_text("label,name\n0,road\n1,sky\n")
    text, code = printed(check_dataset(DataConfig(root=scenes), 3))
    assert code == 1
    assert f"fault: {scenes}/classes.csv has 2 classes, but model.n_labels is 3: correct the one that is wrong" in text
    text, code = printed(check_dataset(DataConfig(root=scenes)))
    assert code == 0
    assert "note: label 2 is in 3 of 3 label maps, 50 % of pixels" in text
    assert "--n-labels 2, as classes.csv says, but the maps also contain 2" in text
    (scenes / "classes.csv").write_text("road\n")
    report = check_dataset(DataConfig(root=scenes))
    assert report.faults == [report.class_fault]
    assert "classes.csv, line 1: the header is 'road'" in report.class_fault
