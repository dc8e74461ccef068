"""The table of features keeps what it is given, and says of a damaged file that it is."""

from __future__ import annotations

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
    wrong = {"picture": table.picture + 1, "box": table.box[:3], "feature": np.full((20, 2), np.nan, np.float32)}
    for name, array in wrong.items():
        replace(table, **{name: array}).save(file)
        with pytest.raises(CheckpointError, match=f"damaged \\({name} do not fit"):
            FeatureTable.load(file)
    np.savez(file, id=np.zeros(1), about=np.array({"a": 1}, object))
    with pytest.raises(CheckpointError, match="damaged"):
        FeatureTable.load(file)


def test_an_instance_has_the_label_of_most_of_its_pixels() -> None:
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
