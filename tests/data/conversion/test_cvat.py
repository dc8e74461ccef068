"""CVAT for images 1.1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdgan.errors import DataError

META = """<meta><task><labels>
<label><name>road</name><color>#804080</color><type>any</type></label>
<label><name>car</name><color>#00008e</color></label>
<label><name>arm</name><parent>man</parent></label>
</labels></task></meta>"""


@pytest.fixture
def annotate(save, root: Path) -> Callable[..., Path]:
    """Write annotations.xml with the elements of one image of 20x12."""

    def write(elements: str, name: str = "a.jpg", meta: str = META, more: str = "") -> Path:
        save(f"source/images/{name}", np.zeros((12, 20, 3), np.uint8))
        image = f'<image id="0" name="{name}" width="20" height="12" {more}>{elements}</image>'
        file = root / "annotations.xml"
        file.write_text(
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{image}</annotations>'
        )
        return file

    return write


def box(label: str, *corners: float, more: str = "") -> str:
    numbers = " ".join(f'{name}="{value}"' for name, value in zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True))
    return f'<box label="{label}" source="manual" occluded="0" {numbers} {more}></box>'


def test_shapes_are_drawn_by_z_order(annotate, convert, maps) -> None:
    annotate(
        box("car", 4, 4, 8, 8, more='z_order="1"')
        + box("road", 0, 6, 20, 12, more='z_order="0"')
        + box("car", 6, 6, 10, 10, more='z_order="1"')
    )
    report = convert(stuff=("road",), val_fraction=0.0)
    assert report.spec is not None
    assert report.spec.classes == ("background", "road", "car")
    assert report.spec.css_colors[1:] == ("#804080", "#00008e")
    label, ids = np.zeros((12, 20), int), np.zeros((12, 20), int)
    label[6:], ids[6:] = 1, 1
    label[4:8, 4:8], ids[4:8, 4:8] = 2, 2000
    label[6:10, 6:10], ids[6:10, 6:10] = 2, 2001
    assert np.array_equal(maps("train/a")[0], label)
    assert np.array_equal(maps("train/a")[1], ids)


def test_masks_are_decoded_by_rows(annotate, convert, maps) -> None:
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]], bool)
    annotate('<mask label="car" rle="0, 2, 3, 3, 3, 1" left="5" top="3" width="4" height="3" z_order="0"></mask>')
    convert(val_fraction=0.0)
    assert np.array_equal(maps("train/a")[0][3:6, 5:9] == 2, mask)
    assert int((maps("train/a")[0] > 0).sum()) == mask.sum()


def test_all_kinds_of_areas(annotate, convert, maps) -> None:
    annotate(
        '<polygon label="road" points="0.5,0.5;4.5,0.5;0.5,4.5" group_id="2"></polygon>'
        + box("car", 10, 2, 14, 4, more='rotation="90.0"')
        + '<ellipse label="van" cx="5" cy="9" rx="3" ry="1.5"></ellipse>'
        + '<polyline label="lane" points="12,8;17,8"></polyline><points label="dot" points="18.2,1.2;19,3"></points>'
        + '<tag label="night"></tag>'
    )
    report = convert(val_fraction=0.0, line_width=1)
    assert report.spec is not None
    assert report.spec.classes == ("background", "road", "car", "van", "lane", "dot")
    label = maps("train/a")[0]
    assert [int((row == 1).sum()) for row in label[:6]] == [5, 4, 3, 2, 1, 0]
    assert np.unique(np.argwhere(label == 2)[:, 1]).tolist() == [11, 12, 13]
    assert np.unique(np.argwhere(label == 2)[:, 0]).tolist() == [1, 2, 3, 4, 5]
    van = np.argwhere(label == 3)
    assert van.min(axis=0).tolist() == [7, 2]
    assert van.max(axis=0).tolist() == [10, 8]
    assert np.flatnonzero(label[8] == 4).tolist() == [12, 13, 14, 15, 16, 17]
    assert np.argwhere(label == 5).tolist() == [[1, 18], [3, 19]]


def test_groups_join_shapes(annotate, convert, maps) -> None:
    annotate(
        box("car", 0, 0, 2, 2, more='group_id="1"')
        + box("car", 4, 0, 6, 2)
        + box("car", 8, 0, 9, 2, more='group_id="1"')
    )
    convert(val_fraction=0.0)
    assert maps("train/a")[1][0, :10].tolist() == [2000, 2000, 0, 0, 2001, 2001, 0, 0, 2000, 0]


def test_subsets_are_phases(annotate, convert, save, root) -> None:
    annotate(box("car", 0, 0, 2, 2), name="north/a.jpg", more='subset="Train"')
    assert convert().summary.samples == {"train": 1}


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (box("car", 30, 2, 40, 5), r"image a.jpg, box 1 \(car\) covers no pixel of its image of 20x12"),
        ('<polygon label="car" points="1,2;3,4"></polygon>', "has 2 points, but at least 3 are needed"),
        ('<polygon label="car" points="1,2;3;4,5"></polygon>', "has the point '3', which should be x,y"),
        ('<box label="car" xtl="a" ytl="0" xbr="1" ybr="1"/>', "xtl is 'a', which should be a number"),
        ('<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>', "its runs have 3 pixels, not 2x2"),
        (
            f'<mask label="car" rle="{2**62},{2**62},{2**62},{2**62},4" left="0" top="0" width="2" height="2"/>',
            "not 2x2",
        ),
        (box("\u00a0a\u00a0b", 1, 2, 3, 4), "has the class 'a.xa0b': give it a name on one line"),
        ('<mask label="car" rle="x" left="0" top="0" width="2" height="2"/>', "has a damaged mask"),
        ('<polyline label="car" points="1,2;3,4"/>', r"polyline 1 \(car\) is a line or point"),
        ('<skeleton label="car"/>', "has no area that can be drawn: convert it to a polygon"),
        ("<polygon points='1,2;3,4;5,6'/>", "polygon 1 has no class"),
        ('<polygon label="car" points="1,2;3,1e12;5,6"/>', "which no image reaches"),
    ],
)
def test_bad_shapes_are_refused(annotate, convert, tmp_path, elements, message) -> None:
    annotate(elements)
    with pytest.raises(DataError, match=message):
        convert()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-5], "annotations.xml is damaged"),
        (lambda text: text.replace("?>", '?><!DOCTYPE x [<!ENTITY a "b">]>'), "declares a document type"),
        (lambda text: text.replace("<image", '<track id="0"/><image', 1), "it is of CVAT for video"),
        (lambda text: text.replace('width="20"', 'width="-1"'), "is -1x12"),
        (lambda text: text.replace('"20" height="12"', '"900000" height="900000"'), "more than the limit"),
        (lambda text: text.replace('name="a.jpg"', 'name="b.jpg"'), "names the photo 'b.jpg', which is not in"),
        (lambda text: text.replace('width="20"', 'width="21"'), r"annotations.xml is 21x12, but .*a.jpg is 20x12"),
    ],
)
def test_damaged_files_are_refused(annotate, convert, tmp_path, change, message) -> None:
    file = annotate(box("car", 0, 0, 2, 2))
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=message):
        convert()
    assert not (tmp_path / "out").exists()


def test_images_without_photos_can_be_left_out(annotate, convert) -> None:
    file = annotate(box("car", 0, 0, 2, 2))
    extra = '<image id="1" name="gone.jpg" width="2" height="2"></image></annotations>'
    file.write_text(file.read_text().replace("</annotations>", extra))
    said: list[str] = []
    assert convert(source=file, skip_unpaired=True, say=said.append).written == 1
    assert any("1 image without photos left out" in line for line in said)
