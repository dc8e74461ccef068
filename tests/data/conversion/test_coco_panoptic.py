"""COCO's panoptic annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdgan.data import DatasetSpec
from hdgan.data.class_file import write_classes
from hdgan.data.conversion.shapes import most_instances
from hdgan.errors import DataError

CATEGORIES = [
    {"id": 7, "name": " sky ", "isthing": 0, "color": [70, 130, 180], "supercategory": "sky"},
    {"id": 3, "name": "car", "isthing": 1, "color": [0, 0, 142]},
]
SEGMENTS = np.array([[0, 5, 5, 66051], [300, 300, 66051, 9]], np.uint32)
"""0 is void; 5 and 300 are cars, 66051 is sky, 9 a crowd of cars."""
LABEL = np.array([[0, 1, 1, 2], [1, 1, 2, 1]])
IDS = np.array([[0, 1000, 1000, 2], [1001, 1001, 2, 1]])


def entry(name: str, image: int) -> dict[str, Any]:
    info = [
        {"id": 5, "category_id": 3, "iscrowd": 0, "area": 2, "bbox": [1, 0, 2, 1]},
        {"id": 300, "category_id": 3, "iscrowd": 0},
        {"id": 66051, "category_id": 7, "iscrowd": 0},
        {"id": 9, "category_id": 3, "iscrowd": 1},
    ]
    return {"image_id": image, "file_name": f"{name}.png", "segments_info": info}


@pytest.fixture
def coco(save, root: Path) -> Callable[..., dict[str, Any]]:
    """Write panoptic_val2017.json with its files; other content may be given."""

    def write(segments: np.ndarray = SEGMENTS, phase: str = "val2017", **content: Any) -> dict[str, Any]:
        pixels = np.stack([segments & 255, segments >> 8 & 255, segments >> 16], axis=2).astype(np.uint8)
        save(f"source/annotations/panoptic_{phase}/a.png", pixels)
        save(f"source/{phase}/a.jpg", np.zeros((*segments.shape, 3), np.uint8))
        table = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 2}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [entry("a", 1)],
            "categories": CATEGORIES,
        } | content
        (root / f"annotations/panoptic_{phase}.json").write_text(json.dumps(table))
        return table

    return write


def test_segments_become_labels_and_ids(coco, convert, maps) -> None:
    coco()
    coco(phase="train2017")
    said: list[str] = []
    report = convert(say=said.append)
    assert report.summary.samples == {"train": 1, "val": 1}
    assert report.spec is not None
    assert report.spec.classes == ("unlabeled", "car", "sky")
    assert report.spec.palette[1:].tolist() == [[0, 0, 142], [70, 130, 180]]
    assert (report.summary.dontcare, report.summary.divisor) == (0, 1000)
    for phase in ("train", "val"):
        label, ids = maps(f"{phase}/a")
        assert np.array_equal(label, LABEL)
        assert np.array_equal(ids, IDS)
    assert sum("1 image without annotations left out" in line for line in said) == 2


def test_given_classes_choose_the_labels(coco, convert, maps, tmp_path) -> None:
    coco()
    write_classes(tmp_path / "c.csv", DatasetSpec(("void", "sky", "car"), np.zeros((3, 3), np.uint8)))
    with pytest.raises(DataError, match="calls label 0 void, but label 0 is what no shape covers"):
        convert(classes=tmp_path / "c.csv")
    convert(classes=tmp_path / "c.csv", background="void", val_fraction=1.0)
    assert np.array_equal(maps("val/a")[0], np.array([0, 2, 1])[LABEL])
    assert maps("val/a")[1].tolist() == [[0, 2000, 2000, 1], [2001, 2001, 1, 2]]


def test_a_category_needs_a_class(coco, convert, tmp_path) -> None:
    coco()
    write_classes(tmp_path / "c.csv", DatasetSpec(("unlabeled", "sky"), np.zeros((2, 3), np.uint8)))
    with pytest.raises(DataError, match=r"category 3 is of class 'car', which .*c.csv does not have: add the class"):
        convert(classes=tmp_path / "c.csv")


def test_many_instances_need_a_larger_divisor(save, coco, convert, maps) -> None:
    segments = np.arange(1, 1201, dtype=np.uint32).reshape(30, 40)
    info = [{"id": int(k), "category_id": 3} for k in segments.flat]
    coco(segments, annotations=[{"image_id": 1, "file_name": "a.png", "segments_info": info}])
    report = convert(val_fraction=0.0)
    assert report.summary.divisor == 10_000
    assert np.array_equal(maps("train/a")[1], 10_000 + np.arange(1200).reshape(30, 40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"categories": CATEGORIES[:1]}, r"annotations\[0\]: segment 5 has category 3, which categories does not"),
        ({"annotations": None}, "has no list named annotations, so it is no panoptic annotation"),
        ({"annotations": [{"image_id": 1, "bbox": []}]}, "has no segments_info, so it is no panoptic annotation"),
        ({"annotations": [entry("a", 9)]}, "has the image_id 9, which images does not contain"),
        ({"annotations": [entry("../a", 1)]}, "names a PNG outside of its folder"),
        ({"annotations": [entry("b", 1)]}, "names the PNG b.png, which is not in"),
        ({"images": [{"id": 1, "file_name": "c.jpg"}]}, "names the photo 'c.jpg', which is not in"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no file_name"),
        (
            {"categories": [{"id": 3, "name": "car", "color": [-1, 2, 3]}]},
            r"color\[0\] is -1: give a whole number from 0",
        ),
        ({"categories": [{"id": "x", "name": "sky"}]}, r"categories\[0\]: id is 'x': give a whole number"),
    ],
)
def test_damaged_annotations_are_refused(coco, convert, tmp_path, content, message) -> None:
    coco(**content)
    with pytest.raises(DataError, match=message):
        convert()
    assert not (tmp_path / "out").exists()


def test_segments_that_are_not_listed_are_placed_and_counted(coco, convert) -> None:
    segments = SEGMENTS.copy()
    segments[1, 0:2] = 77
    coco(segments)
    with pytest.raises(
        DataError, match=r"a.png has the segment id 77 .2 pixels, first at x 0, y 1., which .*json does"
    ):
        convert()


def test_a_damaged_file_is_named(coco, convert, root) -> None:
    coco()
    file = root / "annotations/panoptic_val2017.json"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match=r"panoptic_val2017.json is damaged"):
        convert(source=file)


def test_no_image_has_no_instances() -> None:
    assert most_instances([]) == 0
