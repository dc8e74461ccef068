"""Names and colours of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdgan.data.class_file import is_name, read_classes
from hdgan.data.colors import CITYSCAPES, label_palette
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError
from hdgan.files import require_file
from hdgan.wording import count


@dataclass(frozen=True)
class ClassPalette:
    """Name and colour of each class of a model."""

    names: tuple[str, ...]
    colors: np.ndarray
    """[n, 3] uint8."""

    def name(self, label: int) -> str:
        """The name of a class, or a note that the label belongs to no class."""
        return self.names[label] if 0 <= label < len(self.names) else f"no class ({label})"

    def css_color(self, label: int) -> str:
        """The colour of a class, such as #00008e."""
        return "#{:02x}{:02x}{:02x}".format(*self.colors[label % len(self.colors)])

    def paint(self, label: np.ndarray) -> np.ndarray:
        """Colour a label map [H, W], giving [H, W, 3] uint8. Labels of no class become black."""
        known = (label >= 0) & (label < len(self.colors))
        return self.colors[label * known] * known[..., None].astype(np.uint8)


def choose_palette(n_labels: int, spec: DatasetSpec | None, file: Path | None = None) -> ClassPalette:
    """Choose names and colours: those of the dataset, of Cityscapes for 35 classes, else numbers and VOC's.

    Args:
        n_labels: number of classes of the model.
        spec: classes of the dataset that the model was trained on, where they are known.
        file: overrides them, as `read_overrides` says.

    Raises:
        DataError: the file cannot be used.
    """
    if spec is None and n_labels == CITYSCAPES.n_labels:
        spec = CITYSCAPES
    if spec is None:
        spec = DatasetSpec(tuple(f"class {label}" for label in range(n_labels)), label_palette(n_labels))
    if file is not None:
        spec = read_overrides(file, spec)
    return ClassPalette(spec.classes, spec.palette)


def read_overrides(file: Path, spec: DatasetSpec) -> DatasetSpec:
    """Read the file of an option --classes.

    Args:
        file: the classes.csv of a dataset (`hdgan.data.class_file`), or a text file with one name per line, which
            leaves the colours. A file is of the first kind if it is called *.csv or starts with a header that has label
            and name.
        spec: classes of the model, whose number the file must have.

    Raises:
        DataError: the file cannot be read, or has another number of classes.
    """
    lines = _lines(file)
    head = {cell.strip() for line in lines[:1] for cell in line.split(",")}
    if file.suffix.lower() == ".csv" or {"label", "name"} <= head:
        found = read_classes(file)
        if found.n_labels != spec.n_labels:
            raise DataError(
                f"{file} has {count(found.n_labels, 'class')}, but the model has {spec.n_labels}: give a line for each "
                f"label from 0 to {spec.n_labels - 1}"
            )
        return found
    if len(lines) != spec.n_labels:
        raise DataError(
            f"{file} has {count(len(lines), 'line')}, but the model has {count(spec.n_labels, 'class')}: {_REMEDY}"
        )
    for number, line in enumerate(lines, 1):
        if not is_name(line):
            raise DataError(f"{file}, line {number}: {line[:60]!r} is no name of a class: {_REMEDY}")
    return DatasetSpec(tuple(lines), spec.palette)


_REMEDY = "give one class name per line, or a CSV file with the columns label,name,color"


def _lines(file: Path) -> list[str]:
    require_file(file, DataError)
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): {_REMEDY}") from error
