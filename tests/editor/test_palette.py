from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdgan.editor.palette import choose_palette
from hdgan.errors import DataError
from hdgan.scenes import SPEC


def test_the_scenes_have_their_own_names_and_colours() -> None:
    palette = choose_palette(SPEC.n_labels, SPEC)
    assert palette.names == SPEC.classes
    assert palette.css_color(0) == "#{:02x}{:02x}{:02x}".format(*SPEC.palette[0])


def test_35_classes_are_those_of_cityscapes() -> None:
    palette = choose_palette(35, None)
    assert [palette.name(label) for label in (7, 11, 24, 26, 33)] == ["road", "building", "person", "car", "bicycle"]
    assert palette.css_color(26) == "#00008e"


def test_other_classes_are_numbered() -> None:
    palette = choose_palette(4, None)
    assert palette.name(3) == "class 3"
    assert len({palette.css_color(label) for label in range(4)}) == 4


def test_labels_of_no_class_are_black() -> None:
    palette = choose_palette(4, None)
    assert palette.name(255) == "no class (255)"
    painted = palette.paint(np.array([[1, 255, -1]]))
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[palette.colors[1].tolist(), [0, 0, 0], [0, 0, 0]]]


def test_names_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("wall\ndoor \n")
    assert choose_palette(2, None, file).names == ("wall", "door")
    with pytest.raises(
        DataError, match="2 lines, but the model has 3 classes: give one class name per line, or a CSV file"
    ):
        choose_palette(3, None, file)
    with pytest.raises(DataError, match="does not exist: check the path"):
        choose_palette(3, None, tmp_path / "none.txt")


def test_a_device_is_refused_as_file_of_names() -> None:
    with pytest.raises(DataError, match="/dev/zero is a pipe, device or socket"):
        choose_palette(3, None, Path("/dev/zero"))


def test_a_table_gives_names_and_colours(tmp_path: Path) -> None:
    file = tmp_path / "classes.csv"
    file.write_text("label,name,color\n1,door,#010203\n0,wall,\n")
    palette = choose_palette(2, None, file)
    assert palette.names == ("wall", "door")
    assert palette.css_color(1) == "#010203"
    file.rename(tmp_path / "names.txt")  # its header tells what it is
    assert choose_palette(2, None, tmp_path / "names.txt").names == ("wall", "door")
    with pytest.raises(DataError, match="has 2 classes, but the model has 3: give a line for each label from 0 to 2"):
        choose_palette(3, None, tmp_path / "names.txt")


def test_names_alone_leave_the_colours(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("\n".join(f"n{label}" for label in range(SPEC.n_labels)))
    palette = choose_palette(SPEC.n_labels, SPEC, file)
    assert palette.names[2] == "n2"
    assert np.array_equal(palette.colors, SPEC.palette)
    file.write_text("wall\n\n")
    with pytest.raises(
        DataError, match=r"names\.txt, line 2: '' is no name of a class: give one class name per line, or a"
    ):
        choose_palette(2, None, file)
