"""Packing: what is written again, what is left, and what is refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, SizeConfig, find_pairs, find_phases, pack_dataset
from hdgan.data.packed import verify_packed
from hdgan.data.packed_index import ENDING
from hdgan.errors import ConfigError, DataError, HdganError

from .packing import RNG, SIZES, assert_same_samples, dataset, pack_into


def test_only_what_changed_is_packed_again(street, packed, save):
    save("street/train_label/city/1_label.png", np.full((23, 37), 2, np.uint8))
    for part in ("label", "inst", "img"):
        next((street / f"train_{part}" / "city").glob("0_*")).unlink()
    half_written = packed / "train" / "city" / f".0{ENDING}.0123abcd.tmp"
    half_written.touch()
    foreign = [
        packed / "runs" / "a" / "checkpoints" / "100" / "model.safetensors",
        packed / "train" / f"mine{ENDING}",
        packed / "train" / "city" / f".0{ENDING}.tmp",
        packed / "train" / "city" / f".mine{ENDING}.0123abcd.tmp",
        packed / "other" / "city" / f"0{ENDING}",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (4, 3)
    data = dataset(packed, SizeConfig(width=20))
    assert [pair.stem for pair in data.pairs] == ["city/1", "city/2", "city/3"]
    assert (data[0]["label"] == 2).all()
    assert not half_written.exists()
    assert all(path.exists() for path in foreign)
    assert not (packed / "train" / "city" / f"0{ENDING}").exists()


def test_labels_of_what_is_kept_are_checked_again(nvidia, save, tmp_path):
    label = np.zeros((8, 12), np.uint8)
    label[0, 0] = 9
    save("train_label/s3_label.png", label)  # which no look at a few samples finds
    out, size = tmp_path / "packed", SizeConfig(width=3)
    pack_into(nvidia, out, size, n_labels=None)
    assert all(9 not in dataset(out, size, 10)[i]["label"] for i in range(5)), "the file must not tell"
    with pytest.raises(
        DataError, match=r"s3_label\.png contains label 9, but model\.n_labels is 4; set model\.n_labels to at least 10"
    ):
        pack_into(nvidia, out, size)
    report = pack_dataset(DataConfig(root=nvidia, dontcare=9), out, [size], 4)
    assert (report.samples, report.kept) == (7, 7)


def test_a_sample_that_does_not_tell_its_labels_is_packed_again(street, packed):
    path = packed / "train" / "city" / f"1{ENDING}"
    whole = path.read_bytes()
    about = to_plain(verify_packed(path))
    del about["labels"]
    save_file(load_file(path), path, {"hdgan": json.dumps(about)})
    report = pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert (report.samples, report.kept) == (5, 4)
    assert path.read_bytes() == whole


def test_an_interrupted_packing_goes_on(street, tmp_path):
    out, config = tmp_path / "packed", DataConfig(root=street)

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(config, out, threads=1, progress=interrupt)
    with pytest.raises(DataError, match=r"is only partly packed: repeat hdgan data pack for .*street, which"):
        find_pairs(DataConfig(root=out), "train")
    report = pack_dataset(config, out)
    assert report.samples == 5
    assert 3 <= report.kept < 5
    assert_same_samples(dataset(street, SizeConfig()), dataset(out, SizeConfig()))


def test_an_interrupted_repacking_does_not_pass_as_whole(street, packed, save):
    config = DataConfig(root=street)
    for i in range(4):
        save(f"street/train_img/city/{i}_img.png", RNG.integers(0, 256, (23, 37, 3), dtype=np.uint8))
    for part in ("label", "inst", "img"):
        next((street / f"train_{part}" / "city").glob("3_*")).unlink()

    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(config, packed, SIZES, 4, threads=1, progress=interrupt)
    with pytest.raises(DataError, match=r"is only partly packed: repeat hdgan data pack for .*street, which"):
        find_pairs(DataConfig(root=packed), "train")
    with pytest.raises(
        ConfigError,
        match=r"packed is only partly packed, and its .*: also give train, or leave phase "
        r"out",
    ):
        pack_dataset(config, packed, SIZES, 4, ["test"])
    report = pack_dataset(config, packed, SIZES, 4)
    assert report.samples == 4
    assert_same_samples(dataset(street, SIZES[0]), dataset(packed, SIZES[0]))
    assert not (packed / "train" / "city" / f"3{ENDING}").exists(), "the index forgot what it listed"


def test_what_is_listed_stays_usable_while_another_phase_is_packed(street, packed, save):
    for part in ("label", "inst"):
        save(f"street/val_{part}/v.png", RNG.integers(0, 4, (23, 37), dtype=np.uint8))

    def interrupt(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_dataset(DataConfig(root=street), packed, SIZES, 4, ["val"], progress=interrupt)
    assert find_phases(DataConfig(root=packed)) == ("test", "train")


def test_phases_can_be_packed_one_by_one(street, tmp_path):
    out, config = tmp_path / "packed", DataConfig(root=street)
    pack_dataset(config, out, phases=["train"])
    assert find_phases(DataConfig(root=out)) == ("train",)
    with pytest.raises(DataError, match="was packed without phase test; it contains: train"):
        find_pairs(DataConfig(root=out), "test")
    pack_dataset(config, out, phases=["test"])
    assert find_phases(DataConfig(root=out)) == ("test", "train")


def test_layout_and_labels_must_suit(packed, street):
    with pytest.raises(ConfigError, match=r"contains label maps \(layout packed\); set model\.n_labels"):
        find_pairs(DataConfig(root=packed), "train", labels=False)
    with pytest.raises(DataError, match=r"has no packed\.json, which hdgan data pack writes; expected"):
        find_pairs(DataConfig(root=street, layout="packed"), "train")


def test_folders_that_cannot_be_written(street, packed, tmp_path, monkeypatch):
    config = DataConfig(root=street)
    with pytest.raises(
        ConfigError, match="street exists and is not a packed dataset: choose another out, or remove it"
    ):
        pack_dataset(config, street)
    with pytest.raises(ConfigError, match=r"was packed with sizes 20x\*, 16x8, not 30x\*: choose another out"):
        pack_dataset(config, packed, [SizeConfig(width=30)])
    with pytest.raises(ConfigError, match="was packed with photo_filter bicubic, not lanczos"):
        pack_into(street, packed, SizeConfig(width=20), photo_filter="lanczos")
    with pytest.raises(ConfigError, match="packed is already packed: give the folder that it was packed from"):
        pack_dataset(DataConfig(root=packed), tmp_path / "again")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("hdgan.data.pack.shutil.disk_usage", lambda path: usage)
    with pytest.raises(HdganError, match=r"new needs about \d\d\.\d kB, but only 1\.0 kB are free: free space, choose"):
        pack_dataset(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_phases_give_no_space(street, tmp_path, monkeypatch):
    out, config = tmp_path / "packed", DataConfig(root=street)
    pack_dataset(config, out, phases=["train"])
    monkeypatch.setattr("hdgan.data.pack.shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(HdganError, match=r"packed needs about .*, but only 0 bytes are free"):
        pack_dataset(config, out, phases=["test"])


def test_faults_of_the_source_are_told(street, save, tmp_path):
    with pytest.raises(DataError, match=r"contains label 3, but model\.n_labels is 3"):
        pack_dataset(DataConfig(root=street), tmp_path / "packed", n_labels=3)
    save("street/train_inst/city/2_inst.npy", np.full((23, 37), 2**31, np.int64))
    (street / "train_inst/city/2_inst.tif").unlink()
    with pytest.raises(DataError, match="do not fit into signed 32-bit integers"):
        pack_dataset(DataConfig(root=street), tmp_path / "packed")


def test_names_that_are_not_utf8_are_packed_as_text(save, tmp_path):
    for folder in ("train_label", "train_img"):
        file = save(f"old/{folder}/x.png", np.zeros((4, 6), np.uint8))
        file.rename(file.with_name(os.fsdecode(b"z\xfcrich.png")))
    out = tmp_path / "packed"
    assert pack_dataset(DataConfig(root=tmp_path / "old"), out).kept == 0
    assert pack_dataset(DataConfig(root=tmp_path / "old"), out).kept == 1
    assert [pair.stem for pair in find_pairs(DataConfig(root=out), "train").pairs] == ["z%FCrich"]


@pytest.mark.parametrize(
    ("name", "message"), [("n" * 240, "longer than 227 bytes"), ("C:1", "allows a file named 'C:1'")]
)
def test_names_that_no_packed_sample_can_have_are_refused_first(save, tmp_path, name, message):
    save(f"odd/train_label/{name}.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match=rf"{name}\.png: .*{message}.*rename it"):
        pack_dataset(DataConfig(root=tmp_path / "odd"), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_half_written_index_is_removed(street, packed):
    left = packed / ".packed.json.89abcdef.tmp"
    left.touch()
    pack_dataset(DataConfig(root=street), packed, SIZES, 4)
    assert not left.exists()


def test_an_index_of_an_earlier_hdgan_is_read(packed):
    index = packed / "packed.json"
    index.write_text(json.dumps(json.loads(index.read_text()), ensure_ascii=False, indent=1))
    assert find_phases(DataConfig(root=packed)) == ("test", "train")


def test_names_of_classes_are_packed(nvidia, tmp_path):
    out, names = tmp_path / "packed", nvidia / "classes.csv"
    names.write_text("label,name\n0,a\n1,b\n")
    with pytest.raises(DataError, match=r"classes\.csv has 2 classes, but model\.n_labels is 4"):
        pack_into(nvidia, out)
    assert not out.exists()
    names.write_bytes(b"label,name\r\n0,a\r\n1,b\r\n2,c\r\n3,d\r\n")
    pack_into(nvidia, out)
    assert (out / "classes.csv").read_bytes() == names.read_bytes()
    names.write_text("label,name\n0,a\n1,b\n2,c\n3,dd\n")
    pack_into(nvidia, out)
    assert (out / "classes.csv").read_bytes() == names.read_bytes()
