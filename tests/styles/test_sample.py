"""Styles of one map: changed, mixed, kept as JSON, and brought into the order of a table."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch

from hdgan.errors import CheckpointError, ConfigError
from hdgan.ops import instance_index
from hdgan.styles import Style, Styles
from hdgan.styles.sample import feature_rows

STYLES = Styles({7: Style(7, (0.0, 1.0)), 26001: Style(26, (0.5, -0.25), 3)}, "abc")


def test_styles_come_back_from_json(tmp_path: Path) -> None:
    STYLES.save(tmp_path / "s.json")
    assert Styles.load(tmp_path / "s.json") == STYLES
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["instances"]["26001"] == {"label": 26, "feature": [0.5, -0.25], "cluster": 3}
    assert Styles.from_plain(Styles({-4: Style(0, ())}).to_plain()) == Styles({-4: Style(0, ())})


def test_files_that_hold_no_styles_are_named(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    with pytest.raises(CheckpointError, match=r"s\.json does not exist"):
        Styles.load(file)
    plain = STYLES.to_plain()
    wrong = {
        "{": "is damaged",
        "[]": "give a table of SavedStyles",
        json.dumps(plain | {"format": 2}): "format 2, but this hdgan reads formats up to 1",
        json.dumps(plain | {"instances": {"car": plain["instances"]["7"]}}): "'car' is not an instance id",
        json.dumps(plain | {"instances": {"7": {"label": 7, "feature": "red"}}}): "feature",
        json.dumps(plain | {"instances": {"9" * 5000: plain["instances"]["7"]}}): "'9{20}' is not an instance id",
        json.dumps(plain | {"instances": {"7": {"label": 7, "feature": [10**400]}}}): "a number of 401 digits",
        "[" * 100_000: "nested too deeply",
        json.dumps({"format": 1}): "encoder, instances is missing",
    }
    for text, complaint in wrong.items():
        file.write_text(text)
        with pytest.raises(CheckpointError, match=complaint) as caught:
            Styles.load(file)
        assert str(file) in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop.json", tmp_path / "pipe.json"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path in (tmp_path, loop, pipe):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            Styles.load(path)


def test_one_instance_changes() -> None:
    changed = STYLES.with_style(7, Style(7, (9.0, 9.0)))
    assert changed.instances[7].feature == (9, 9)
    assert changed.instances[26001] == STYLES.instances[26001]
    assert STYLES.instances[7].feature == (0, 1)
    assert changed.encoder == "abc"


def test_mixing_goes_in_a_straight_line() -> None:
    other = Styles({7: Style(7, (2.0, 0.0)), 8: Style(8, (1.0, 1.0), 0)}, "abc")
    half = STYLES.mixed(other, 0.25)
    assert half.instances[7] == Style(7, (0.5, 0.75))
    assert half.instances[8] == other.instances[8]
    assert half.instances[26001] == STYLES.instances[26001]
    for amount, end in ((0, STYLES), (1, other)):
        instances = STYLES.mixed(other, amount).instances
        assert instances == {**STYLES.instances, **other.instances, 7: end.instances[7]}
    with pytest.raises(CheckpointError, match="the styles are of encoder xyz, but the model has encoder abc"):
        STYLES.mixed(Styles({}, "xyz"), 0.5)
    with pytest.raises(CheckpointError, match="instance 7 have 2 and 3 numbers: mix only styles of one model"):
        STYLES.mixed(Styles({7: Style(7, (0.0, 0.0, 0.0))}), 0.5)


def test_rows_follow_the_table() -> None:
    index = instance_index(torch.tensor([[[7, 26001], [5, 5]], [[7, 7], [7, 7]]]))
    features, known = feature_rows([STYLES, Styles({7: Style(7, (3.0, 4.0))})], index, [5, 7, 26, 7], 2)
    assert index.ids.tolist() == [5, 7, 26001, 7]
    assert known.tolist() == [False, True, True, True]
    assert features.tolist() == [[0, 0], [0, 1], [0.5, -0.25], [3, 4]]


@pytest.mark.parametrize("feature", [(1.0,), (1.0, 2.0, 3.0), (1.0, float("nan")), (1.0, 1e39)])
def test_features_that_do_not_fit_are_named(feature: tuple[float, ...]) -> None:
    index = instance_index(torch.tensor([[[7]]]))
    with pytest.raises(ConfigError, match=r"style of instance 7 is \[1\.0.*: the model takes 2 finite numbers"):
        feature_rows([Styles({7: Style(7, feature)})], index, [7], 2)


def test_styles_of_another_class_are_named() -> None:
    index = instance_index(torch.tensor([[[7, 8]]]))
    with pytest.raises(ConfigError, match="instance 7 is of class 2, but its style is of class 7: give styles of this"):
        feature_rows([STYLES], index, [2, 7], 2)
