"""Names and colours of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdgan.data.colors import CITYSCAPES, label_palette
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError
from hdgan.files import require_file


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


def choose_palette(n_labels: int, spec: DatasetSpec | None, names: Path | None = None) -> ClassPalette:
    """Choose names and colours: those of the dataset, of Cityscapes for 35 classes, else numbers and VOC's.

    Args:
        n_labels: number of classes of the model.
        spec: classes of the dataset that the model was trained on, where they are known.
        names: text file that overrides the names, one per line.

    Raises:
        DataError: the file cannot be read, or has another number of lines.
    """
    if spec is None and n_labels == CITYSCAPES.n_labels:
        spec = CITYSCAPES
    if spec is None:
        spec = DatasetSpec(tuple(f"class {label}" for label in range(n_labels)), label_palette(n_labels))
    return ClassPalette(spec.classes if names is None else _read_names(names, n_labels), spec.palette)


def _read_names(file: Path, n_labels: int) -> tuple[str, ...]:
    require_file(file, DataError)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): give a text file with one class name per line") from error
    if len(lines) != n_labels:
        raise DataError(
            f"{file} has {len(lines)} lines, but the model has {n_labels} classes: give one class name per line"
        )
    return tuple(line.strip() for line in lines)
