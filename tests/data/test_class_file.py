from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdgan.data.class_file import CLASS_FILE, read_classes, read_overrides, write_classes
from hdgan.data.colors import CITYSCAPES, label_palette, numbered_classes
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError


def written(folder: Path, text: str) -> Path:
    file = folder / CLASS_FILE
    file.write_bytes(text.encode())
    return file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    spec = DatasetSpec(
        ("road, wet", 'a "quoted" name', "ciel, été"), np.array([[0, 1, 2], [255, 128, 0], [9] * 3], np.uint8)
    )
    file = tmp_path / CLASS_FILE
    for given in (spec, CITYSCAPES):
        write_classes(file, given)
        found = read_classes(file)
        assert found.classes == given.classes
        assert found.palette.dtype == np.uint8
        assert np.array_equal(found.palette, given.palette)


def test_the_file_is_a_plain_table(tmp_path: Path) -> None:
    file = tmp_path / CLASS_FILE
    write_classes(file, DatasetSpec(("road", "sky"), np.array([[128, 64, 128], [70, 130, 180]], np.uint8)))
    assert file.read_bytes() == b"label,name,color\n0,road,#804080\n1,sky,#4682b4\n"


def test_lines_may_come_in_any_order(tmp_path: Path) -> None:
    spec = read_classes(
        written(tmp_path, "\ufefflabel, name ,color\r\n2,sky,#4682B4\r\n\r\n0,road,\r\n1, car ,#00008e\r\n")
    )
    assert spec.classes == ("road", "car", "sky")
    assert spec.palette.tolist() == [label_palette(1)[0].tolist(), [0, 0, 142], [70, 130, 180]]


def test_without_colours_the_default_palette_is_taken(tmp_path: Path) -> None:
    spec = read_classes(written(tmp_path, "name,label\nroad,0\ncar,1\n"))
    assert spec.classes == ("road", "car")
    assert np.array_equal(spec.palette, label_palette(2))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty: give a CSV file with the header label,name,color"),
        ("label,name\n", "has a header, but no classes: add a line for each label"),
        ("road\ncar\n", "line 1: the header is 'road': give a CSV file"),
        ("label;name;color\n0;road;\n", "line 1: the header is 'label;name;color'"),
        ("label,name,name\n0,a,b\n", "line 1: the header is 'label,name,name'"),
        ("label,name,trainable\n0,a,1\n", "line 1: the header is 'label,name,trainable'"),
        ("label,name\n0,road\n1,car,red\n", "line 3 has 3 fields, but the header has 2: separate the fields by commas"),
        (
            "label,name\n0,road\n2,car\n",
            "line 3: label is '2', but the file has 2 lines below its header: number them from 0 to 1",
        ),
        ("label,name\n-1,road\n", "line 2: label is '-1', but the file has 1 line below its header"),
        ("label,name\nroad,0\n", "line 2: label is 'road'"),
        ("label,name\n0,road\n0,car\n", "line 3: label 0 is already on line 2: give each label from 0 to 1 once"),
        ("label,name\n0,\n", "line 2: name is '': give a name on one line, of 1 to 200 printable"),
        ('label,name\n0,"a\nb"\n', r"line 3: name is 'a\\nb': give a name on one line"),
        (f"label,name\n0,{'a' * 201}\n", "line 2: name is 'aaa"),
        ("label,name,color\n0,road,red\n", "line 2: color is 'red': write it as #rrggbb, such as #804080"),
        ("label,name,color\n0,road,#80408\n", "line 2: color is '#80408'"),
        ('label,name\n0,"road\n', "is not a CSV file"),
    ],
)
def test_errors_name_file_line_value_and_remedy(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as caught:
        read_classes(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / CLASS_FILE))


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / CLASS_FILE
    file.write_bytes("label,name\n0,été\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 at byte 13: save it as UTF-8"):
        read_classes(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: check the path"):
        read_classes(tmp_path / CLASS_FILE)


def test_overriding_names_are_read_from_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("wall\ndoor \n")
    spec = read_overrides(file, numbered_classes(2))
    assert spec.classes == ("wall", "door")
    assert np.array_equal(spec.palette, label_palette(2))
    complaint = "2 lines, but the model has 3 classes: give one class name per line, or a CSV file"
    with pytest.raises(DataError, match=complaint):
        read_overrides(file, numbered_classes(3))
    with pytest.raises(DataError, match="does not exist: check the path"):
        read_overrides(tmp_path / "none.txt", numbered_classes(3))
    file.write_text("wall\n\n")
    with pytest.raises(
        DataError, match=r"names\.txt, line 2: '' is no name of a class: give one class name per line, or"
    ):
        read_overrides(file, numbered_classes(2))


def test_a_device_is_refused_as_file_of_names() -> None:
    with pytest.raises(DataError, match="/dev/zero is a pipe, device or socket"):
        read_overrides(Path("/dev/zero"), numbered_classes(3))


def test_a_table_overrides_names_and_colours(tmp_path: Path) -> None:
    file = written(tmp_path, "label,name,color\n1,door,#010203\n0,wall,\n")
    file = file.rename(tmp_path / "names.txt")  # its header tells what it is
    spec = read_overrides(file, numbered_classes(2))
    assert spec.classes == ("wall", "door")
    assert spec.css_colors[1] == "#010203"
    with pytest.raises(DataError, match="has 2 classes, but the model has 3: give a line for each label from 0 to 2"):
        read_overrides(file, numbered_classes(3))
