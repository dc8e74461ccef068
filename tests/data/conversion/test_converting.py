"""What holds for all formats: complete or absent, repeated, and never at the cost of other data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hdgan.data.conversion import FORMATS, ConversionOptions, convert_dataset
from hdgan.data.conversion.class_names import named_classes
from hdgan.data.conversion.converting import formats
from hdgan.data.conversion.staging import ConversionRecord
from hdgan.data.conversion.writing import SampleWriter
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files.json import write_json

PHOTO = np.zeros((4, 6, 3), np.uint8)
LABEL = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
NAMES = "abcde"


@pytest.fixture
def source(save, root: Path) -> Path:
    for name in NAMES:
        save(f"source/labels/train/{name}.png", LABEL)
        save(f"source/images/train/{name}.jpg", PHOTO)
    return root


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the samples that are written."""
    names: list[str] = []
    write = SampleWriter.write

    def noting(self, sample):
        result = write(self, sample)
        names.append(sample.stem)
        return result

    monkeypatch.setattr(SampleWriter, "write", noting)
    return names


def test_every_format_is_known_by_its_name() -> None:
    assert tuple(formats()) == FORMATS
    assert all(name == each.name for name, each in formats().items())


def test_a_fault_leaves_out_absent_and_a_repeat_continues(source, save, convert, written, tmp_path) -> None:
    file = save("source/labels/train/c.png", LABEL[:3])
    with pytest.raises(DataError, match=r"c.png is 6x3, but .*c.jpg is 6x4"):
        convert()
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial/train_label/a.png").is_file()
    assert sorted(written) == ["a", "b", "d", "e"]
    written.clear()
    save("source/labels/train/c.png", LABEL)
    assert (file.is_file(), convert().kept) == (True, 4)
    assert written == ["c"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.csv", "conversion.json", "train_img", "train_label",
    ]  # fmt: skip


def test_all_faults_are_told(source, save, convert) -> None:
    for name in "bd":
        save(f"source/labels/train/{name}.png", LABEL[:3])
    said: list[str] = []
    with pytest.raises(DataError, match=r"2 of 5 samples cannot be converted, the first: .*b.png is 6x3"):
        convert(say=said.append)
    assert sum(line.startswith("fault: ") for line in said) == 2


def test_a_killed_conversion_continues_behind_a_half_written_line(source, convert, written, tmp_path) -> None:
    (source / "labels/train/e.png").unlink()
    with pytest.raises(DataError):  # before anything is written
        convert()
    assert not (tmp_path / "out.partial").exists()
    (source / "images/train/e.jpg").unlink()
    (source / "images/train/d.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"d.jpg cannot be read"):
        convert()
    journal = tmp_path / "out.partial/conversion.jsonl"
    journal.write_text(journal.read_text()[:-5])
    (tmp_path / "out.partial/train_label/.x.png.01234567.hdtmp").touch()
    (source / "images/train/d.jpg").write_bytes((source / "images/train/a.jpg").read_bytes())
    written.clear()
    assert convert().kept == 2
    assert sorted(written) == ["c", "d"]
    assert not list((tmp_path / "out").rglob("*.hdtmp"))


def test_other_options_begin_anew_and_leave_nothing_behind(source, save, convert, classes, tmp_path) -> None:
    save("source/labels/train/c.png", LABEL[:3])
    with pytest.raises(DataError):
        convert()
    save("source/labels/train/c.png", LABEL)
    (source / "labels/train/a.png").rename(source / "labels/train/z.png")
    (source / "images/train/a.jpg").rename(source / "images/train/z.jpg")
    report = convert(classes=classes)
    assert report.kept == 0
    assert sorted(path.stem for path in (tmp_path / "out/train_label").iterdir()) == ["b", "c", "d", "e", "z"]


def test_phases_of_an_earlier_attempt_leave_no_empty_folders(save, convert, tmp_path) -> None:
    for name in NAMES:
        save(f"source/labels/{name}.png", LABEL if name != "c" else LABEL[:3])
        save(f"source/images/{name}.jpg", PHOTO)
    (tmp_path / "val.txt").write_text("a\n")
    with pytest.raises(DataError):
        convert(val_list=tmp_path / "val.txt")
    assert (tmp_path / "out.partial/val_label/a.png").is_file()
    save("source/labels/c.png", LABEL)
    assert convert(val_fraction=0.0).summary.samples == {"train": 5}
    assert not list((tmp_path / "out").glob("val_*"))


def test_a_place_that_cannot_be_written_is_named(source, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^out .*file.out lies in .*file, which is not a folder: choose another"):
        convert_dataset(ConversionOptions(source), tmp_path / "file" / "out")


def test_a_finished_folder_is_kept(source, save, convert, written, tmp_path) -> None:
    report = convert()
    assert (report.written, report.kept) == (5, 0)
    written.clear()
    again = convert()
    assert (again.written, again.kept) == (0, 5)
    assert again.summary == report.summary
    assert again.spec is not None
    assert written == []
    with pytest.raises(ConfigError, match="out exists, but was converted with other options, or from files that"):
        convert(dontcare="2")
    save("source/labels/train/c.png", LABEL + 1)
    with pytest.raises(ConfigError, match="choose another out, or remove it"):
        convert()


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_other_data_is_never_touched(source, convert, tmp_path, name) -> None:
    mine = tmp_path / name / "train_label" / "a.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} exists and was not written by `hdgan data convert`"):
        convert()
    assert mine.read_text() == "mine"
    assert [path.name for path in mine.parent.iterdir()] == ["a.png"]


def test_an_empty_folder_may_become_the_dataset(source, convert, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    assert convert().written == 5


def test_a_kill_before_the_first_record_leaves_a_folder_that_is_used_again(source, convert, tmp_path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/.conversion.json.01234567.hdtmp").touch()
    assert convert().written == 5


def test_a_damaged_journal_is_refused(source, convert, tmp_path) -> None:
    (tmp_path / "out.partial").mkdir()
    write_json(tmp_path / "out.partial/conversion.json", ConversionRecord())
    (tmp_path / "out.partial/conversion.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"conversion.jsonl is damaged \(its text is not UTF-8\): delete .*out.partial"):
        convert()


def test_places_that_no_folder_can_get_are_refused_before_any_work(source, written, tmp_path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "empty")
    for out, message in (
        (".", r"out \. cannot be replaced .* such as dataset"),
        ("/", "out / cannot be replaced"),
        (tmp_path / "link", "is a link, which the converted folder cannot replace: give the folder .*empty"),
        (tmp_path / "loop/out", "out .*loop/out lies in .*loop, which is not a folder: choose another"),
        (tmp_path / "file/out", "out .*file/out lies in .*file, which is not a folder: choose another"),
    ):
        with pytest.raises(HdganError, match=message):
            convert_dataset(ConversionOptions(source), Path(out))
    assert written == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link", "loop", "source"]


@pytest.mark.parametrize("name", ["", " a", "a\nb", "x" * 201])
def test_the_background_has_a_name_that_classes_csv_takes(name) -> None:
    with pytest.raises(ConfigError, match=r"background is .*: give a name on one line"):
        named_classes(ConversionOptions(Path()), [], name)


def test_two_processes_do_not_convert_to_one_folder(source, tmp_path) -> None:
    from filelock import FileLock

    options = ConversionOptions(source)
    with (
        FileLock(tmp_path / ".out.partial.lock"),
        pytest.raises(ConfigError, match="another process is converting to"),
    ):
        convert_dataset(options, tmp_path / "out")
    assert convert_dataset(options, tmp_path / "out").written == 5
    assert not (tmp_path / ".out.partial.lock").exists()


def test_photos_can_be_links(source, convert, tmp_path) -> None:
    convert(link=True)
    photo = tmp_path / "out/train_img/a.jpg"
    assert photo.samefile(source / "images/train/a.jpg")
    assert not (tmp_path / "out/train_label/a.png").samefile(source / "labels/train/a.png")


def test_links_to_another_file_system_are_explained(source, convert, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"cannot be linked .*Invalid cross-device link.*: leave link out"):
        convert(link=True)


def test_the_result_lies_outside_of_the_source(source) -> None:
    for out in (source, source / "out"):
        with pytest.raises(ConfigError, match="which is searched: choose a folder beside it"):
            convert_dataset(ConversionOptions(source), out)


def test_a_source_must_exist(convert) -> None:
    with pytest.raises(DataError, match="source does not exist: check the path"):
        convert()


def test_two_formats_need_a_choice(source, save, convert) -> None:
    save("source/trainA/a.png", PHOTO)
    save("source/trainB/a.png", PHOTO)
    (source / "annotations.xml").write_text("<annotations></annotations>")
    with pytest.raises(DataError, match="fits the formats cvat and train-ab: give format with the one that you mean"):
        convert()
    assert convert(format="images-labels").written == 5


def test_names_that_differ_in_case_only_are_refused(source, save, convert, tmp_path) -> None:
    save("source/labels/train/A.png", LABEL)
    save("source/images/train/A.jpg", PHOTO)
    says = r"images/train/A\.jpg and \S+images/train/a\.jpg have names that differ only in upper and lower case"
    with pytest.raises(DataError, match=says):
        convert()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="has no file system that takes no files")
@pytest.mark.parametrize("out", ["/proc/out", "/proc/absent/out"])
def test_a_folder_that_takes_no_files_is_not_taken_for_one_in_use(source, out) -> None:
    with pytest.raises(HdganError, match=rf"^cannot write {out}: /proc takes no new files; choose another out$"):
        convert_dataset(ConversionOptions(source), Path(out))
