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


def test_a_file_replaces_names_and_colours(tmp_path: Path) -> None:
    file = tmp_path / "classes.csv"
    file.write_text("label,name,color\n1,door,#010203\n0,wall,\n")
    palette = choose_palette(2, None, file)
    assert palette.names == ("wall", "door")
    assert palette.css_color(1) == "#010203"
    with pytest.raises(DataError, match="has 2 classes, but the model has 3"):
        choose_palette(3, None, file)
