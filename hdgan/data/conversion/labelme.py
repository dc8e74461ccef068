"""LabelMe: a JSON file for each photo, with shapes in the order in which they are drawn."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from hdgan.data.config import Size
from hdgan.data.conversion.annotations import (
    BACKGROUND,
    SHAPE_OPTIONS,
    AnnotatedImage,
    annotation_files,
    no_area,
    opened,
    shape_dataset,
    used_fields,
    without_class,
)
from hdgan.data.conversion.class_names import named_classes
from hdgan.data.conversion.finding import PhotoFinder, phase_in
from hdgan.data.conversion.shapes import (
    Area,
    BitmapArea,
    BoxArea,
    DotsArea,
    DrawnShape,
    PolygonArea,
    StrokeArea,
    ellipse,
    require_near,
)
from hdgan.data.conversion.source import ConversionOptions, EmbeddedPhoto, RawDataset, SourceFormat, clipped
from hdgan.data.folders import images_in
from hdgan.data.headers import EXTENSIONS, header_of, read_header
from hdgan.data.images import read_map
from hdgan.data.inspection import ProgressCallback
from hdgan.errors import DataError
from hdgan.files.json import parse_json, read_bytes
from hdgan.wording import count

_GROWTH = 16
"""Bytes of memory for each byte of a file: a coordinate of 8 bytes becomes a number in a list."""
_MARK = b'"shapes"'
_PEEK = 8
"""Files that are opened to recognise the format."""
_OWN_BACKGROUND = "_background_"
"""LabelMe's own name of label 0."""
_REMEDY = "save it again with LabelMe, or remove it"
_LINES = {"line": 2, "linestrip": 2, "point": 1, "points": 1}
"""Shapes without an area, and how many points they have at least."""


@dataclass(frozen=True)
class LabelMeShape:
    """The fields of a shape that are used."""

    label: str
    points: tuple[tuple[float, float], ...]
    shape_type: str | None = "polygon"
    group_id: int | str | None = None
    mask: str | None = None


class LabelMe(SourceFormat):
    """Photos with LabelMe's JSON files."""

    name: ClassVar[str] = "labelme"
    pattern: ClassVar[str] = "a JSON file of LabelMe for each photo"
    uses: ClassVar[frozenset[str]] = SHAPE_OPTIONS

    def fits(self, options: ConversionOptions) -> bool:
        return any(_MARK in _text(file) for file in annotation_files(options.source, ".json", "**/*.json")[:_PEEK])

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        files = annotation_files(options.source, ".json", "**/*.json")
        if not files:
            raise DataError(f"{options.source} contains no *.json: give the folder of LabelMe's files")
        images: list[AnnotatedImage] = []
        lacking: list[DataError] = []
        for done, file in enumerate(files, start=1):
            try:
                images.append(_opened(file, options))
            except _NoPhoto as error:
                if not options.skip_unpaired:
                    raise DataError(str(error)) from None
                lacking.append(error)
            progress("annotations", done, len(files))
        notes = [f"{count(len(lacking), 'file')} without photos left out, the first: {lacking[0]}"] if lacking else []
        if not images:
            raise DataError(f"{options.source}: no file has a photo; {lacking[0]}")
        notes += _unannotated(options.source, images)
        background = options.background or BACKGROUND
        names = sorted({shape.name for image in images for shape in image.shapes} - {background})
        return shape_dataset(images, named_classes(options, names, background), options, notes)


class _NoPhoto(DataError):
    """A file whose photo is not there."""


def _text(file: Path) -> bytes:
    """The content of a small file, or the beginning and the end of a large one, whose photo may be in between."""
    with opened(file) as content:
        text = content.read(2**16)
        size = content.seek(0, os.SEEK_END)
        if size > 2**16:
            content.seek(max(2**16, size - 2**16))
            text += content.read(2**16)
    return text


def _table(file: Path) -> Mapping[str, Any]:
    """The content of a file."""
    table = parse_json(read_bytes(file, _GROWTH, "a JSON file", DataError), str(file), _REMEDY, DataError)
    if not isinstance(table, Mapping) or not isinstance(table.get("shapes"), list):
        raise DataError(f"{file} has no list named shapes, so it is no file of LabelMe: {_REMEDY}")
    return table


def _opened(file: Path, options: ConversionOptions) -> AnnotatedImage:
    """Read one file, but none of its bitmaps."""
    table = _table(file)
    photo = _photo_of(file, table, options)
    size = photo.size if isinstance(photo, EmbeddedPhoto) else read_header(photo).upright
    said = table.get("imageWidth"), table.get("imageHeight")
    if None not in said and said != size:
        raise DataError(
            f"{file} says that its photo is {said[0]!s:.20}x{said[1]!s:.20}, but {photo} is {size[0]}x{size[1]}: "
            "restore the photo that was annotated, or annotate this one"
        )
    root = options.source if options.source.is_dir() else file.parent
    phase, stem = phase_in(file.relative_to(root))
    background = options.background or BACKGROUND
    shapes = tuple(_shapes(file, table["shapes"], background, options))
    return AnnotatedImage(stem, phase, file, photo, size, shapes)


def _photo_of(file: Path, table: Mapping[str, Any], options: ConversionOptions) -> Path | EmbeddedPhoto:
    """The photo of a file: the one that it names, the one beside it of the same name, or the one that it contains."""
    name = str(table.get("imagePath") or "")
    folders = [file.parent] if options.photos is None else [options.photos, file.parent]
    photo = next((found for folder in folders if (found := PhotoFinder([folder]).find(name))), None)
    endings = [ending for lower in sorted(EXTENSIONS) for ending in (lower, lower.upper())]
    beside = (folder / f"{file.stem}{ending}" for folder in folders for ending in endings)
    photo = photo or next(filter(Path.is_file, beside), None)
    if photo is not None:
        return photo
    if table.get("imageData"):
        return _embedded(file, table)
    raise _NoPhoto(str(PhotoFinder(folders).missing(name or file.stem, str(file))))


def _embedded(file: Path, table: Mapping[str, Any]) -> EmbeddedPhoto:
    """The photo that a file contains, as the bytes of a PNG or JPEG file."""
    with _picture(table["imageData"], f"{file}, imageData", ("PNG", "JPEG")) as picture:
        ending = ".png" if picture.format == "PNG" else ".jpg"
        return EmbeddedPhoto(file, ending, header_of(picture, picture).upright, partial(_image_data, file))


def _image_data(file: Path) -> bytes:
    return base64.b64decode(_table(file)["imageData"])


def _picture(text: object, where: str, formats: tuple[str, ...]) -> Image.Image:
    """Open a picture that is in a file as text."""
    try:
        return Image.open(io.BytesIO(base64.b64decode(str(text), validate=True)), formats=formats)
    except UnidentifiedImageError as error:  # whose text shows the address of an object
        raise DataError(f"{where} is a damaged picture (not {' or '.join(formats)}): {_REMEDY}") from error
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is a damaged picture ({error!s:.100}): {_REMEDY}") from error


def _shapes(file: Path, shapes: list[Any], background: str, options: ConversionOptions) -> Iterator[DrawnShape]:
    for number, entry in enumerate(shapes, start=1):
        where = f"{file}, shape {number}"
        shape = used_fields(LabelMeShape, entry, where, _REMEDY)
        label = shape.label.strip()
        if not label:
            raise without_class(where)
        where = f"{where} ({clipped(label)})"
        require_near(where, (number for point in shape.points for number in point))
        area = _area(shape, where, options)
        if area is not None:
            name = background if label == _OWN_BACKGROUND else label
            yield DrawnShape(name, area, where, None if shape.group_id is None else str(shape.group_id))


def _area(shape: LabelMeShape, where: str, options: ConversionOptions) -> Area | None:
    """What a shape covers; None for a line or point that is left out."""
    kind, points, n = shape.shape_type or "polygon", shape.points, len(shape.points)
    if kind in _LINES and n >= _LINES[kind]:
        if options.line_width is None:
            raise no_area(where)
        if not options.line_width:
            return None
        if kind in ("line", "linestrip"):
            return StrokeArea(points, options.line_width)
        return DotsArea(points, options.line_width)
    if kind in ("polygon", "oriented_rectangle") and n > 2:
        return PolygonArea(points)
    if kind == "rectangle" and n == 2:
        return BoxArea(*points[0], *points[1])
    if kind == "circle" and n == 2:
        radius = math.dist(*points)
        return ellipse(points[0], (radius, radius))
    if kind == "mask" and n == 2 and shape.mask is not None:
        return _bitmap(shape.mask, points, where)
    raise DataError(f"{where} is a {kind!s:.40} of {count(n, 'point')}, which has no area: correct or remove the shape")


def _bitmap(text: str, points: tuple[tuple[float, float], ...], where: str) -> BitmapArea:
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    mask = _named_map(_picture(text, f"{where}: its mask", ("PNG",)), where)
    size: Size = right - left + 1, bottom - top + 1
    if (mask.shape[1], mask.shape[0]) != size:
        raise DataError(
            f"{where} has a mask of {mask.shape[1]}x{mask.shape[0]}, but its corners are {size[0]}x{size[1]} apart: "
            f"{_REMEDY}"
        )
    return BitmapArea(left, top, mask > 0)


def _named_map(picture: Image.Image, where: str) -> np.ndarray:
    try:
        return read_map(picture)
    except DataError as error:
        raise DataError(f"{where}, mask: {error}") from error


def _unannotated(source: Path, images: list[AnnotatedImage]) -> list[str]:
    """A note on photos that have no file, which are usually those that nobody has annotated yet."""
    if source.is_file():
        return []
    used = {os.path.realpath(image.photo) for image in images if isinstance(image.photo, Path)}
    others = sorted(photo for photo in images_in(source) if os.path.realpath(photo) not in used)
    return [f"{count(len(others), 'photo')} without annotations left out, the first: {others[0]}"] if others else []


FORMAT = LabelMe()
