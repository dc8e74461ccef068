"""Whatever is in an annotation file: it is converted, or refused in one of hdgan's own errors, and OUT stays absent."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdgan.data.conversion import ConversionOptions, convert_dataset, count_colors
from hdgan.data.conversion.staging import RECORD
from hdgan.errors import HdganError
from tests.fuzz import damage
from tests.fuzz.test_files import Reader, require_read_or_refused, tries

PHOTO = np.zeros((4, 6, 3), np.uint8)
MASK = np.array([[1, 0], [1, 1]], np.uint8)


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 4}],
    "annotations": [
        {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 2, "iscrowd": 0}]}
    ],
    "categories": [{"id": 2, "name": "car", "isthing": 1, "color": [1, 2, 3]}],
}
LABELME = {
    "imagePath": "a.png",
    "imageWidth": 6,
    "imageHeight": 4,
    "imageData": base64.b64encode(png(PHOTO)).decode(),
    "shapes": [
        {"label": "car", "points": [[0, 0], [3, 0], [0, 3]], "shape_type": "polygon", "group_id": 1},
        {
            "label": "man",
            "points": [[1, 1], [2, 2]],
            "shape_type": "mask",
            "mask": base64.b64encode(png(MASK)).decode(),
        },
        {"label": "sun", "points": [[3, 2], [4, 2]], "shape_type": "circle"},
    ],
}
CVAT = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>car</name><color>#c06060</color></label></labels>
</task></meta><image id="0" name="a.png" width="6" height="4">
<polygon label="car" points="0.5,0.5;3.5,0.5;0.5,3.5" z_order="1" group_id="2"></polygon>
<mask label="car" rle="0, 1, 1, 2" left="1" top="1" width="2" height="2" z_order="0"></mask>
<box label="car" xtl="1.0" ytl="1.0" xbr="3.0" ybr="2.0" rotation="30.0" z_order="2"></box>
<ellipse label="car" cx="3" cy="2" rx="1" ry="1" z_order="2"></ellipse>
</image></annotations>"""
LIST = b"a\n"


def convert(format: str, source: Path, **options: object) -> None:
    """Convert into a folder that is afterwards complete, or absent where an error ended it."""
    out = source.parent.parent / "out"
    for folder in (out, out.with_name("out.partial")):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        convert_dataset(ConversionOptions(source, **options), out, format)
    except HdganError:
        assert not out.exists()
        raise
    assert (out / RECORD).is_file()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reader]]:
    """By the name of a file: its path, and what reads it."""
    root = tmp_path_factory.mktemp("sources") / "all"
    for name in ("coco", "labelme", "cvat", "folders"):
        (root / name / "source").mkdir(parents=True)
        (root / name / "source" / "a.png").write_bytes(png(PHOTO))
    coco, labelme, cvat, folders = (root / name / "source" for name in ("coco", "labelme", "cvat", "folders"))
    (coco / "panoptic").mkdir()
    (coco / "panoptic/a.png").write_bytes(png(PHOTO + np.array([1, 0, 0], np.uint8)))
    for part in ("images", "labels"):
        (folders / part).mkdir()
        (folders / part / "a.png").write_bytes(png(PHOTO))
    classes = folders / "classes.csv"
    classes.write_text("label,name,color\n0,road,#000000\n")
    return {
        "coco": (coco / "panoptic.json", lambda path: convert("coco-panoptic", path)),
        "labelme": (labelme / "a.json", lambda path: convert("labelme", path)),
        "embedded": (root / "a.json", lambda path: convert("labelme", path)),
        "cvat": (cvat / "a.xml", lambda path: convert("cvat", path)),
        "list": (folders / "val.txt", lambda path: convert("colors", folders, classes=classes, val_list=path)),
        "map": (folders / "labels/a.png", lambda path: convert("colors", folders, classes=classes)),
        "palette": (folders / "labels/a.png", lambda path: count_colors(folders)),
    }


CASES: dict[str, tuple[bytes, Callable[[bytes], st.SearchStrategy[bytes]]]] = {
    "coco": (json.dumps(COCO).encode(), damage.damaged_json),
    "labelme": (json.dumps(LABELME).encode(), damage.damaged_json),
    "embedded": (json.dumps(LABELME).encode(), damage.damaged_json),
    "cvat": (CVAT, lambda content: damage.damaged_lines(content, b'"') | damage.damaged_bytes(content)),
    "list": (LIST, damage.damaged_bytes),
    "map": (png(PHOTO), damage.damaged_png),
    "palette": (png(PHOTO), damage.damaged_png),
}


@pytest.mark.parametrize("name", CASES)
def test_undamaged_files_are_converted(sources, name) -> None:
    path, read = sources[name]
    path.write_bytes(CASES[name][0])
    read(path)


@pytest.mark.parametrize("name", CASES)
@tries(8)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(sources, name, data) -> None:
    path, read = sources[name]
    content, damaged = CASES[name]
    require_read_or_refused(read, path, data.draw(damaged(content)))
    path.write_bytes(content)
