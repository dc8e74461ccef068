"""What formats with annotation files share: finding and reading these files, and turning shapes into samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from hdgan.config.options import option
from hdgan.config.serialization import from_plain
from hdgan.data.class_file import CLASS_FILE
from hdgan.data.config import Size
from hdgan.data.conversion.class_names import divisor_of, dontcare_of, label_of, stuff_labels
from hdgan.data.conversion.shapes import DrawnShape, draw_maps, most_instances
from hdgan.data.conversion.source import DIVISOR, ConversionOptions, EmbeddedPhoto, RawDataset, RawSample
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError

SHAPE_OPTIONS = frozenset({"photos", "classes", "dontcare", "background", "stuff", "line_width"})
"""The options that have an effect on formats of shapes."""
BACKGROUND = "background"
T = TypeVar("T")


@dataclass(frozen=True)
class AnnotatedImage:
    """The shapes of one photo, in the order of drawing."""

    stem: str
    phase: str
    file: Path
    """The annotation file."""
    photo: Path | EmbeddedPhoto
    size: Size
    shapes: tuple[DrawnShape, ...]


def annotation_files(source: Path, ending: str, *patterns: str) -> list[Path]:
    """The annotation file that is the source itself, or those in the folder that fit one of the patterns, sorted."""
    if source.is_file():
        return [source] if source.suffix.lower() == ending else []
    return sorted({file for pattern in patterns for file in source.glob(pattern) if file.is_file()})


def used_fields(kind: type[T], entry: object, where: str, remedy: str) -> T:
    """A table of an annotation file as a dataclass, without the fields that the dataclass does not have.

    Args:
        kind: The dataclass.
        entry: The table.
        where: What messages call it.
        remedy: What to do if it is none.

    Raises:
        DataError: it is no table, lacks a field, or has a value that cannot be used.
    """
    if not isinstance(entry, Mapping):
        raise DataError(f"{where} is not a table: {remedy}")
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return from_plain(kind, {name: value for name, value in entry.items() if name in names}, where, DataError)


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Open an annotation file to look at a part of it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            yield content
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): make it readable") from error


def no_area(where: str) -> DataError:
    """The error for a line or point, which covers no area."""
    return DataError(
        f"{where} is a line or point, which covers no area: give {option('line_width')} to draw lines and points that "
        f"many pixels wide, or {option('line_width')} 0 to leave them out"
    )


def shape_dataset(
    images: Sequence[AnnotatedImage], spec: DatasetSpec, options: ConversionOptions, notes: Sequence[str]
) -> RawDataset:
    """The dataset whose maps are drawn from shapes.

    Args:
        images: All photos with their shapes.
        spec: The classes; label 0 is what no shape covers.
        options: `classes`, `dontcare` and `stuff` are used.
        notes: For the user.

    Raises:
        DataError: a shape has a class that is not in `spec`.
        ConfigError: an option names a class that is not in `spec`.
    """
    stuff = stuff_labels(options, spec)
    instances = most_instances(image.shapes for image in images)
    divisor = divisor_of(spec.n_labels, instances, DIVISOR)
    samples = []
    for image in images:
        labels = [label_of(spec, shape.name, shape.where, options) for shape in image.shapes]
        read = partial(draw_maps, image.shapes, labels, image.size, stuff, divisor)
        files = (image.file, image.photo) if isinstance(image.photo, Path) else (image.file,)
        samples.append(RawSample(image.stem, files, image.photo, read=read, phase=image.phase))
    return RawDataset(tuple(samples), spec, dontcare_of(options, spec), divisor, tuple(notes))


def without_class(where: str) -> DataError:
    """The error for a shape that has no class."""
    return DataError(f"{where} has no class: name its class, as {CLASS_FILE} lists it, or remove the shape")
