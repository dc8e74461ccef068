"""CVAT for images 1.1: an XML file with the shapes of all photos, drawn in the order of their z_order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from hdgan.data.class_file import color_of
from hdgan.data.conversion.annotations import (
    BACKGROUND,
    SHAPE_OPTIONS,
    AnnotatedImage,
    annotation_files,
    no_area,
    opened,
    shape_dataset,
    without_class,
)
from hdgan.data.conversion.class_names import named_classes
from hdgan.data.conversion.finding import PHASES, PhotoFinder, phase_in
from hdgan.data.conversion.shapes import (
    Area,
    BitmapArea,
    BoxArea,
    DotsArea,
    DrawnShape,
    PolygonArea,
    StrokeArea,
    decode_runs,
    ellipse,
    require_near,
    turned,
)
from hdgan.data.conversion.source import ConversionOptions, RawDataset, SourceFormat, clipped
from hdgan.data.folders import name_of
from hdgan.data.inspection import ProgressCallback
from hdgan.errors import DataError
from hdgan.files.json import read_bytes
from hdgan.files.limits import require_bounded
from hdgan.wording import count

_GROWTH = 16
"""Bytes of memory for each byte of a file."""
_ROOT = re.compile(rb"<annotations[\s>]")
_PEEK = 2**14
_REMEDY = "export it from CVAT again, as CVAT for images 1.1"
_IGNORED = frozenset({"tag", "attribute"})
"""Elements of an image that say nothing about its pixels."""


class Cvat(SourceFormat):
    """Photos with an XML file of CVAT."""

    name: ClassVar[str] = "cvat"
    pattern: ClassVar[str] = "annotations.xml of CVAT for images 1.1"
    uses: ClassVar[frozenset[str]] = SHAPE_OPTIONS

    def fits(self, options: ConversionOptions) -> bool:
        return any(_ROOT.search(_head(file)) for file in _files(options.source))

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        files = [file for file in _files(options.source) if _ROOT.search(_head(file))]
        if not files:
            raise DataError(f"{options.source} contains no XML file of CVAT: {_REMEDY}")
        names: dict[str, Sequence[int] | None] = {}
        images: list[AnnotatedImage] = []
        lacking: list[DataError] = []
        for file in files:
            root = _parsed(file)
            names |= _declared(root)
            entries = root.findall("image")
            for done, entry in enumerate(entries, start=1):
                image = _image_of(file, entry, options, lacking)
                images += [image] if image else []
                progress(f"annotations of {file.name}", done, len(entries))
        if not images:
            raise lacking[0] if lacking else DataError(f"{files[0]} has no image: {_REMEDY}")
        notes = [f"{count(len(lacking), 'image')} without photos left out, the first: {lacking[0]}"] if lacking else []
        for image in images:
            names |= dict.fromkeys(shape.name for shape in image.shapes if shape.name not in names)
        spec = named_classes(options, list(names), BACKGROUND, list(names.values()))
        return shape_dataset(images, spec, options, notes)


def _files(source: Path) -> list[Path]:
    return annotation_files(source, ".xml", "*.xml", "annotations/*.xml")


def _head(file: Path) -> bytes:
    with opened(file) as content:
        return content.read(_PEEK)


def _parsed(file: Path) -> Element:
    """The root of an XML file.

    Raises:
        DataError: it is not XML, declares entities, which could expand without end, or is of CVAT for video.
    """
    content = read_bytes(file, _GROWTH, "an XML file", DataError)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(f"{file} declares a document type, which CVAT does not write: {_REMEDY}")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise DataError(f"{file} is damaged ({error}): {_REMEDY}") from error
    if root.find("track") is not None:
        raise DataError(f"{file} has tracks, so it is of CVAT for video: {_REMEDY}")
    return root


def _declared(root: Element) -> dict[str, Sequence[int] | None]:
    """The labels that a file declares, with their colours, in its order."""
    found: dict[str, Sequence[int] | None] = {}
    for label in root.iterfind("meta//labels/label"):
        name = label.findtext("name", "").strip()
        if name and label.findtext("type") != "skeleton" and label.find("parent") is None:
            found[name] = color_of(label.findtext("color", ""))
    return found


def _image_of(
    file: Path, entry: Element, options: ConversionOptions, lacking: list[DataError]
) -> AnnotatedImage | None:
    """One image with its shapes; None if its photo is not there and may be left out, which is added to `lacking`."""
    name, subset = entry.get("name", ""), entry.get("subset", "")
    where = f"{file}, image {clipped(name or entry.get('id'))}"
    width, height = (int(_number(entry, side, where)) for side in ("width", "height"))
    require_bounded(where, 5 * max(0, width) * max(0, height), f"an image of {width}x{height} pixels")
    if width < 1 or height < 1:
        raise DataError(f"{where} is {width}x{height}: {_REMEDY}")
    root = file.parent
    places = [options.photos] if options.photos else [root / "images", root, root.parent / "images"]
    finder = PhotoFinder([*(place / subset for place in places if subset.isalnum()), *places])
    photo = finder.find(name)
    if photo is None:
        error = finder.missing(name, where)
        if not options.skip_unpaired:
            raise error
        lacking.append(error)
        return None
    path = PurePosixPath(name.replace("\\", "/"))
    phase, stem = PHASES.get(subset.lower(), ""), name_of(Path(path))
    if not phase:
        phase, stem = phase_in(path)
    shapes = [_shape(shape, number, where, options) for number, shape in enumerate(entry, start=1)]
    drawn = sorted((found for found in shapes if found), key=lambda found: found[0])
    return AnnotatedImage(stem, phase, file, photo, (width, height), tuple(shape for _, shape in drawn))


def _shape(shape: Element, number: int, image: str, options: ConversionOptions) -> tuple[int, DrawnShape] | None:
    """The z_order of an element and its shape; None for what is left out or no shape."""
    if shape.tag in _IGNORED:
        return None
    name = shape.get("label", "").strip()
    where = f"{image}, {clipped(shape.tag)} {number}" + (f" ({clipped(name)})" if name else "")
    if not name:
        raise without_class(where)
    area = _area(shape, where, options)
    z_order = int(_number(shape, "z_order", where, "0"))
    group = shape.get("group_id", "0")
    return (z_order, DrawnShape(name, area, where, None if group == "0" else group)) if area else None


def _area(shape: Element, where: str, options: ConversionOptions) -> Area | None:
    if shape.tag in ("polyline", "points"):
        if options.line_width is None:
            raise no_area(where)
        points = _points(shape, where, 2 if shape.tag == "polyline" else 1)
        kind = StrokeArea if shape.tag == "polyline" else DotsArea
        return kind(points, options.line_width) if options.line_width else None
    if shape.tag not in _AREAS:
        raise DataError(
            f"{where} has no area that can be drawn: convert it to a polygon, a box or a mask in CVAT, or remove it"
        )
    return _AREAS[shape.tag](shape, where)


def _box(shape: Element, where: str) -> Area:
    left, top, right, bottom = (_number(shape, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
    degrees = _number(shape, "rotation", where, "0")
    if not degrees:
        return BoxArea(left, top, right, bottom)
    return turned([(left, top), (right, top), (right, bottom), (left, bottom)], degrees)


def _ellipse(shape: Element, where: str) -> Area:
    x, y, width, height = (_number(shape, name, where) for name in ("cx", "cy", "rx", "ry"))
    return ellipse((x, y), (width, height), _number(shape, "rotation", where, "0"))


def _mask(shape: Element, where: str) -> Area:
    left, top, width, height = (int(_number(shape, name, where)) for name in ("left", "top", "width", "height"))
    require_bounded(where, 9 * max(0, width) * max(0, height), f"a mask of {width}x{height} pixels")
    try:
        runs = [int(run) for run in shape.get("rle", "").split(",")]
        return BitmapArea(left, top, decode_runs(runs, width, height))
    except ValueError as error:
        raise DataError(f"{where} has a damaged mask ({error!s:.100}): {_REMEDY}") from error


_AREAS: dict[str, Callable[[Element, str], Area]] = {
    "polygon": lambda shape, where: PolygonArea(_points(shape, where, 3)),
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}
"""What makes an area of an element, by its name."""


def _number(element: Element, name: str, where: str, default: str = "") -> float:
    """A number that is an attribute of an element."""
    text = element.get(name, default)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {name} is {text!r:.60}, which should be a number: {_REMEDY}")
    require_near(where, [number])
    return number


def _points(shape: Element, where: str, least: int) -> list[tuple[float, float]]:
    points = list(_pairs(shape.get("points", ""), where))
    if len(points) < least:
        raise DataError(f"{where} has {count(len(points), 'point')}, but at least {least} are needed: remove the shape")
    return points


def _pairs(text: str, where: str) -> Iterator[tuple[float, float]]:
    for pair in filter(None, text.split(";")):
        try:
            x, y = map(float, pair.split(","))
        except ValueError:
            raise DataError(f"{where} has the point {pair!r:.60}, which should be x,y: {_REMEDY}") from None
        require_near(where, [x, y])
        yield x, y


FORMAT = Cvat()
