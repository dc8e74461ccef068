"""LabelMe's files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.data import DatasetSpec
from hdgan.data.class_file import write_classes
from hdgan.errors import ConfigError, DataError

WIDTH, HEIGHT = 20, 12


def shape(label: str, *points: tuple[float, float], kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


@pytest.fixture
def annotate(save, root: Path) -> Callable[..., Path]:
    """Write the file of a photo with shapes."""

    def write(*shapes: dict[str, Any], name: str = "a", photo: bool = True, **more: Any) -> Path:
        if photo:
            save(f"source/{name}.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        path = root / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {"version": "5.4.1", "shapes": shapes, "imagePath": f"{Path(name).name}.jpg", "imageData": None}
        path.write_text(json.dumps(table | size | more))
        return path

    return write


def test_shapes_are_drawn_in_order(annotate, convert, maps) -> None:
    annotate(
        shape("road", (0, 6), (20, 12)),
        shape("car", (2, 2), (8, 8)),
        shape("car", (6, 4), (12, 10)),
        shape("_background_", (0, 11), (1, 12)),
    )
    report = convert(stuff=("road",), val_fraction=0.0)
    assert report.spec is not None
    assert report.spec.classes == ("background", "car", "road")
    label, ids = np.zeros((HEIGHT, WIDTH), int), np.zeros((HEIGHT, WIDTH), int)
    label[6:], ids[6:] = 2, 2
    label[2:8, 2:8], ids[2:8, 2:8] = 1, 1000
    label[4:10, 6:12], ids[4:10, 6:12] = 1, 1001
    label[11, 0] = ids[11, 0] = 0
    assert np.array_equal(maps("train/a")[0], label)
    assert np.array_equal(maps("train/a")[1], ids)


def test_a_group_is_one_instance(annotate, convert, maps) -> None:
    annotate(
        shape("car", (0, 0), (2, 2), group_id=4),
        shape("car", (4, 0), (6, 2)),
        shape("car", (8, 0), (10, 2), group_id=4),
        shape("man", (12, 0), (14, 2), group_id=4),
    )
    convert(val_fraction=0.0)
    ids = maps("train/a")[1]
    assert ids[0].tolist() == [1000, 1000, 0, 0, 1001, 1001, 0, 0, 1000, 1000, 0, 0, 2000, 2000, *[0] * 6]


def test_all_kinds_of_areas(annotate, convert, maps) -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 2] = mask[0, 0] = 1
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    text = base64.b64encode(png.getvalue()).decode()
    annotate(
        shape("polygon", (0, 0), (4, 0), (0, 4), kind="polygon"),
        shape("circle", (10, 3), (12, 3), kind="circle"),
        shape("mask", (14, 1), (17, 3), kind="mask", mask=text),
    )
    annotate(shape("turned", (2, 2), (8, 2), (8, 6), (2, 6), kind="oriented_rectangle"), name="b")
    annotate(
        shape("line", (1, 5), (6, 5), kind="line"),
        shape("strip", (1, 8), (6, 8), (6, 11), kind="linestrip"),
        shape("dot", (15, 5), kind="point"),
        name="c",
    )
    convert(val_fraction=0.0, line_width=1)
    label = maps("train/a")[0]  # circle 1, dot 2, line 3, mask 4, polygon 5, strip 6, turned 7
    assert [int((row == 5).sum()) for row in label[:6]] == [5, 4, 3, 2, 1, 0]
    assert np.argwhere(label == 4).tolist() == [[1, 14], [2, 16]]
    circle = label == 1
    assert circle[3, 8:12].all()
    assert not circle[:, :8].any()
    assert 12 <= circle.sum() <= 25
    assert (maps("train/b")[0][2:7, 2:9] == 7).all()
    lines = maps("train/c")[0]
    assert np.flatnonzero(lines[5] == 3).tolist() == [1, 2, 3, 4, 5, 6]
    assert int((lines == 2).sum()) == 1
    assert lines[5, 15] == 2
    assert int((lines == 6).sum()) == 9


def test_lines_need_a_width(annotate, convert, maps) -> None:
    annotate(shape("car", (0, 0), (2, 2)), shape("lane", (1, 5), (6, 5), kind="line"))
    with pytest.raises(DataError, match=r"a.json, shape 2 \(lane\) is a line or point.*: give line_width to draw"):
        convert()
    assert convert(line_width=0, val_fraction=0.0).spec.classes == ("background", "car")


def test_phases_and_folders_are_kept(annotate, convert) -> None:
    for name in ("train/north/a", "val/b"):
        annotate(shape("car", (0, 0), (2, 2)), name=name)
    assert convert().summary.samples == {"train": 1, "val": 1}


def test_the_photo_may_lie_elsewhere(annotate, convert, save, tmp_path) -> None:
    annotate(shape("car", (0, 0), (2, 2)), photo=False, imagePath="C:\\photos\\x.jpg")
    with pytest.raises(
        DataError, match=r"a.json names the photo 'C:.*x.jpg', which is not in .*source: give the folder"
    ):
        convert()
    save("elsewhere/x.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert convert(photos=tmp_path / "elsewhere").written == 1


def test_a_photo_of_another_ending_is_named(annotate, convert, root) -> None:
    annotate(shape("car", (0, 0), (2, 2)), photo=False, imagePath="x.gif")
    (root / "x.gif").write_bytes(b"GIF89a")
    with pytest.raises(
        DataError, match=r"names the photo 'x.gif', but only images \(\.bmp.*\) are read: save .*x.gif as"
    ):
        convert()


def test_the_photo_may_be_in_the_file(annotate, convert, maps, root, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(buffer, "JPEG")
    data = base64.b64encode(buffer.getvalue()).decode()
    annotate(shape("car", (0, 0), (2, 2)), photo=False, imageData=data[:50])
    with pytest.raises(DataError, match=r"a.json, imageData is a damaged picture"):
        convert()
    annotate(shape("car", (0, 0), (2, 2)), photo=False, imageData=data)
    convert(val_fraction=0.0)
    assert (tmp_path / "out/train_img/a.jpg").read_bytes() == buffer.getvalue()
    assert maps("train/a")[0][:2, :2].all()


def test_one_photo_for_two_files_is_refused(annotate, convert, save, tmp_path) -> None:
    for name in ("north/a", "south/a"):
        annotate(shape("car", (0, 0), (2, 2)), name=name, photo=False)
    save("elsewhere/a.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(DataError, match=r"elsewhere.a.jpg is the photo of both north/a and south/a"):
        convert(photos=tmp_path / "elsewhere")


def test_shapes_follow_the_upright_photo(annotate, convert, maps, root) -> None:
    annotate(shape("car", (18, 0), (20, 1)))
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((WIDTH, HEIGHT, 3), np.uint8)).save(root / "a.jpg", exif=exif)
    convert(val_fraction=0.0)
    assert np.argwhere(maps("train/a")[0]).tolist() == [[0, 18], [0, 19]]


def test_photos_without_annotations_are_told(annotate, convert, save) -> None:
    annotate(shape("car", (0, 0), (2, 2)))
    save("source/later.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    said: list[str] = []
    convert(say=said.append)
    assert any(line.startswith("1 photo without annotations left out") for line in said)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shape("car", (30, 2), (40, 5))], r"shape 1 \(car\) covers no pixel of its image of 20x12"),
        ([shape("car", (-9, -9), (-1, -1))], r"covers no pixel of its image"),
        ([shape("car", (1e9, 2), (1, 5))], r"has the coordinate 1e\+09, which no image reaches"),
        ([shape("car", (1, 2), (3, 4), kind="polygon")], "is a polygon of 2 points, which has no area"),
        ([shape("", (1, 2), (3, 4))], "shape 1 has no class: name its class"),
        ([shape("car", (1, 2), (3, 4), kind="mask", mask="?")], "its mask is a damaged picture"),
        ([shape("a\nb", (1, 2), (3, 4))], r"has the class 'a\\nb': give it a name on one line"),
        ([{"label": "car"}], "option points is missing"),
        ([shape("car", ("x", 2))], r"points\[0\]\[0\] is 'x': give a number"),
        ([7], "shape 1 is not a table"),
        (7, "has no list named shapes"),
    ],
)
def test_bad_shapes_are_refused(annotate, convert, tmp_path, shapes, message) -> None:
    annotate(*(shapes if isinstance(shapes, list) else []), **({} if isinstance(shapes, list) else {"shapes": shapes}))
    with pytest.raises(DataError, match=message):
        convert(format="labelme")
    assert not (tmp_path / "out").exists()


def test_shapes_are_clipped_at_the_border(annotate, convert, maps) -> None:
    annotate(shape("car", (-5, -5), (2, 2)), shape("van", (18, 10), (99, 10), (99, 99), kind="polygon"))
    convert(val_fraction=0.0)
    label = maps("train/a")[0]
    assert (label[:2, :2] == 1).all()
    assert label[10, 18] == label[10, 19] == 2
    assert int((label > 0).sum()) == 4 + int((label == 2).sum())


def test_damaged_files_are_named(annotate, convert, root) -> None:
    annotate(shape("car", (0, 0), (2, 2))).write_text('{"shapes": [')
    with pytest.raises(DataError, match=r"a.json is damaged \(.*save it again with LabelMe"):
        convert()


def test_another_photo_than_the_annotated_one_is_refused(annotate, convert) -> None:
    annotate(shape("car", (0, 0), (2, 2)), imageWidth=21)
    with pytest.raises(DataError, match=r"says that its photo is 21x12, but .*a.jpg is 20x12"):
        convert()


def test_given_classes_hold(annotate, convert, maps, tmp_path) -> None:
    annotate(shape("car", (0, 0), (2, 2)))
    write_classes(tmp_path / "c.csv", DatasetSpec(("background", "road"), np.zeros((2, 3), np.uint8)))
    with pytest.raises(DataError, match=r"shape 1 \(car\) is of class 'car', which .*c.csv does not have"):
        convert(classes=tmp_path / "c.csv")
    write_classes(tmp_path / "c.csv", DatasetSpec(("background", "road", "car"), np.zeros((3, 3), np.uint8)))
    with pytest.raises(ConfigError, match="stuff sea: there is no such class"):
        convert(classes=tmp_path / "c.csv", stuff=("sea",))
    report = convert(classes=tmp_path / "c.csv", dontcare="background", val_fraction=0.0)
    assert maps("train/a")[0][0, 0] == 2
    assert report.summary.dontcare == 0
