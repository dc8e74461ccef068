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
class Legend:
    """The classes of a model as people know them."""

    names: tuple[str, ...]
    """By class."""
    palette: np.ndarray
    """[n, 3] uint8, colours by class."""

    def name(self, label: int) -> str:
        """Of a class; a label beyond them is that of no class."""
        return self.names[label] if 0 <= label < len(self.names) else f"no class ({label})"

    def colour(self, label: int) -> str:
        """Of a class, as in CSS."""
        return "#{:02x}{:02x}{:02x}".format(*(self.palette[label % len(self.palette)]))

    def paint(self, label: np.ndarray) -> np.ndarray:
        """A label map [H, W] in colours, [H, W, 3] uint8; labels of no class are black."""
        known = (label >= 0) & (label < len(self.palette))
        return self.palette[label * known] * known[..., None].astype(np.uint8)


def legend_of(n_labels: int, spec: DatasetSpec | None, names: Path | None = None) -> Legend:
    """Choose names and colours: the scenes' own, Cityscapes' for 35 classes, else numbers and PASCAL VOC's colours.

    Args:
        n_labels: classes of the model.
        spec: of the data that it was trained on, where that has one.
        names: text file with the name of one class a line, instead.

    Raises:
        DataError: the file cannot be read, or has another number of lines.
    """
    if spec is None and n_labels == CITYSCAPES.n_labels:
        spec = CITYSCAPES
    if spec is None:
        spec = DatasetSpec(tuple(f"class {label}" for label in range(n_labels)), label_palette(n_labels))
    return Legend(spec.classes if names is None else _read_names(names, n_labels), spec.palette)


def _read_names(file: Path, n_labels: int) -> tuple[str, ...]:
    require_file(file, DataError)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read ({error}): give a text file with the name of one class a line"
        ) from error
    if len(lines) != n_labels:
        raise DataError(f"{file} has {len(lines)} lines, but the model has {n_labels} classes: write one name a line")
    return tuple(line.strip() for line in lines)
