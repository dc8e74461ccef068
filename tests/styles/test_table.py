"""The table of features keeps what it is given, and says of a damaged file that it is."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hdgan.errors import CheckpointError
from hdgan.ops import instance_index
from hdgan.styles.table import FeatureTable, boxes_of, classes_of, fingerprint

MakeTable = Callable[..., FeatureTable]


def test_a_table_comes_back_as_it_was(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table({3: [[0.1, -0.2], [1, 2]], 5: [[0, 0.5]]})
    table.save(tmp_path / "t.npz")
    again = FeatureTable.load(tmp_path / "t.npz")
    assert again.origin == table.origin
    for field in fields(FeatureTable):
        if field.name != "origin":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))
            assert getattr(again, field.name).dtype == getattr(table, field.name).dtype
    assert again.share.tolist() == [0.5, 0.5, 0.5]


def test_joined_tables_count_their_pictures_on(make_table: MakeTable) -> None:
    parts = [make_table({1: [[0.0]] * 2}), make_table({1: [[1.0]] * 3}), make_table({2: [[2.0]]})]
    table = FeatureTable.join(parts, parts[0].origin)
    assert table.picture.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.picture.dtype == np.int32
    assert table.feature[:, 0].tolist() == [0, 0, 1, 1, 1, 2]
    assert len(table.stem) == 6


def test_damaged_tables_are_named(make_table: MakeTable, tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    with pytest.raises(CheckpointError, match=r"t\.npz does not exist: .*hdgan styles encode"):
        FeatureTable.load(file)
    table = make_table({1: [[0.0, 1.0]] * 20})
    table.save(file)
    whole = file.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:300] + bytes(100) + whole[400:]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"t\.npz is damaged .*hdgan styles encode"):
            FeatureTable.load(file)
    np.savez(file, id=np.zeros(1), about=np.array({"a": 1}, object))
    with pytest.raises(CheckpointError, match="damaged"):
        FeatureTable.load(file)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("picture", np.arange(1, 21), "picture is out of range"),
        ("box", np.zeros((3, 4), np.int32), "array shapes do not agree: box"),
        ("feature", np.zeros(20, np.float32), "array shapes do not agree: feature"),
        ("feature", np.full((20, 2), np.nan, np.float32), "feature contains values that are not finite"),
        ("feature", np.full((20, 2), "text"), "feature has dtype <U4"),
        ("id", np.array(7), "array shapes do not agree: picture, id"),
        ("label", np.zeros(20), "label has dtype float64"),
        ("size", np.zeros((20, 2), np.int64), "size is below 1"),
        ("stem", np.array([f"../p{k}" for k in range(20)]), r"stem contains '\.\./p0'"),
        ("stem", np.full(20, np.nan), "stem has dtype float64"),
        ("stem", np.full(20, 2**30, np.uint32).view("U1"), "stem contains a number that is not a character"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    make_table: MakeTable, tmp_path: Path, name: str, array: np.ndarray, says: str
) -> None:
    table = make_table({1: [[0.0, 1.0]] * 20})
    replace(table, **{name: array}).save(tmp_path / "t.npz")
    with pytest.raises(CheckpointError, match=rf"t\.npz is damaged \({says}.*hdgan styles encode RUN"):
        FeatureTable.load(tmp_path / "t.npz")


def test_a_table_without_instances(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table({1: [[0.0, 1.0]]})
    none = {name: getattr(table, name)[:0] for name in ("picture", "id", "label", "area", "box", "feature")}
    replace(table, **none).save(tmp_path / "t.npz")
    assert len(FeatureTable.load(tmp_path / "t.npz")) == 0


def test_a_table_that_inflates_is_refused_before_it_is_read(
    make_table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.npz"
    replace(make_table({1: [[0.0]] * 9}), id=np.zeros(2**20, np.int64)).save(file)
    assert file.stat().st_size < 2**16
    monkeypatch.setenv("HDGAN_MAX_GIB", str(1 / 1024))
    with pytest.raises(CheckpointError, match=r"t\.npz is an archive of \d+ bytes, which takes 0\.0 GiB"):
        FeatureTable.load(file)


def test_an_array_that_claims_another_size_is_refused(make_table: MakeTable, tmp_path: Path) -> None:
    file = tmp_path / "t.npz"
    make_table({1: [[0.0]] * 9}).save(file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["id.npy"] = members["id.npy"].replace(b"(9,)", b"(" + b"9" * 18 + b",)", 1)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match=r"t\.npz is damaged \("):
        FeatureTable.load(file)


@pytest.mark.parametrize("most", [2**22, 0], ids=["counted", "sorted"])
def test_an_instance_has_the_label_of_most_of_its_pixels(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdgan.styles.table._MOST_CELLS", most)
    ids = torch.tensor([[[7, 7, 7, -3], [7, 7, 9, 9]], [[7, 7, 7, 7], [7, 7, 7, 7]]])
    label = torch.tensor([[[1, 2, 2, 0], [2, 1, 3, 255]], [[1, 1, 1, 1], [0, 0, 0, 0]]], dtype=torch.uint8)
    index = instance_index(ids)
    assert index.ids.tolist() == [-3, 7, 9, 7]
    assert classes_of(index, label, 1000).tolist() == [0, 2, 3, 0]


def test_without_labels_the_id_says_the_class() -> None:
    index = instance_index(torch.tensor([[[26, 26004, 7, 1007]]]))
    assert index.ids.tolist() == [7, 26, 1007, 26004]
    assert classes_of(index, None, 1000).tolist() == [7, 26, 1, 26]
    assert classes_of(index, None, 100).tolist() == [7, 26, 10, 260]


def test_boxes_enclose_their_instances() -> None:
    ids = torch.zeros(2, 5, 8, dtype=torch.int64)
    ids[0, 1:3, 4:7] = 2
    ids[1, 4, 0] = 5
    index = instance_index(ids)
    assert index.ids.tolist() == [0, 2, 0, 5]
    boxes = boxes_of(index)
    assert boxes.dtype == np.int32
    assert boxes.tolist() == [[0, 0, 8, 5], [4, 1, 7, 3], [0, 0, 8, 5], [0, 4, 1, 5]]


def test_a_fingerprint_tells_weights_apart() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    first = fingerprint(network)
    assert len(first) == 16
    assert fingerprint(network) == first
    with torch.no_grad():
        network.bias[0] += 1e-6
    assert fingerprint(network) != first
