"""Names and colours of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdgan.data.class_file import read_overrides
from hdgan.data.colors import CITYSCAPES, colorize_labels, numbered_classes
from hdgan.data.spec import DatasetSpec


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
        return np.asarray(colorize_labels(label, self.colors))


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
        spec = numbered_classes(n_labels)
    if file is not None:
        spec = read_overrides(file, spec)
    return ClassPalette(spec.classes, spec.palette)
