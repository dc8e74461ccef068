"""The meaning of the labels of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class DatasetSpec:
    """Names and colours of the classes of a dataset, in the order of their labels."""

    classes: tuple[str, ...]
    palette: np.ndarray
    """[n_labels, 3] uint8, for showing label maps."""

    @property
    def n_labels(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def css_colors(self) -> tuple[str, ...]:
        """Colours such as #804080."""
        return tuple("#{:02x}{:02x}{:02x}".format(*color) for color in self.palette.tolist())
