from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdgan.editor.legend import legend_of
from hdgan.errors import DataError
from hdgan.scenes import SPEC


def test_the_scenes_have_their_own_names_and_colours() -> None:
    legend = legend_of(SPEC.n_labels, SPEC)
    assert legend.names == SPEC.classes
    assert legend.colour(0) == "#{:02x}{:02x}{:02x}".format(*SPEC.palette[0])


def test_35_classes_are_those_of_cityscapes() -> None:
    legend = legend_of(35, None)
    assert [legend.name(label) for label in (7, 11, 24, 26, 33)] == ["road", "building", "person", "car", "bicycle"]
    assert legend.colour(26) == "#00008e"


def test_other_classes_are_numbered() -> None:
    legend = legend_of(4, None)
    assert legend.name(3) == "class 3"
    assert len({legend.colour(label) for label in range(4)}) == 4


def test_a_label_of_no_class_is_black_and_said_to_be_none() -> None:
    legend = legend_of(4, None)
    assert legend.name(255) == "no class (255)"
    painted = legend.paint(np.array([[1, 255, -1]]))
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[legend.palette[1].tolist(), [0, 0, 0], [0, 0, 0]]]


def test_names_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("wall\ndoor \n")
    assert legend_of(2, None, names=file).names == ("wall", "door")
    with pytest.raises(DataError, match="2 lines, but the model has 3"):
        legend_of(3, None, names=file)
    with pytest.raises(DataError, match="does not exist: check the path"):
        legend_of(3, None, names=tmp_path / "none.txt")


def test_a_device_is_no_file_of_names() -> None:
    with pytest.raises(DataError, match="/dev/zero is a pipe, device or socket"):
        legend_of(3, None, names=Path("/dev/zero"))
