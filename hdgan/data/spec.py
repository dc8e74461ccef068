"""The meaning of the labels of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class DatasetSpec:
    """Names and colours of the classes of a dataset, in the order of their labels."""

    classes: tuple[str, ...]
    palette: np.ndarray
    """[n_labels, 3] uint8, for showing label maps."""

    @classmethod
    def of_colors(cls, names: Sequence[str], colors: Sequence[Sequence[int]]) -> DatasetSpec:
        """Classes by their names and colours, each of which is red, green and blue from 0 to 255."""
        return cls(tuple(names), np.array(colors, np.uint8).reshape(len(names), 3))

    @property
    def n_labels(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def css_colors(self) -> tuple[str, ...]:
        """Colours such as #804080."""
        return tuple("#{:02x}{:02x}{:02x}".format(*color) for color in self.palette.tolist())


def class_name(spec: DatasetSpec | None, label: int) -> str:
    """The name of a class, or its number where the classes have no names."""
    return spec.classes[label] if spec is not None and 0 <= label < spec.n_labels else f"class {label}"
