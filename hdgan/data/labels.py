"""Labels that a dataset may hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hdgan.config.options import option
from hdgan.errors import DataError


def check_labels(path: Path, label: np.ndarray, n_labels: int, dontcare: int | None) -> None:
    """Raise DataError unless every label is in [0, n_labels) or `dontcare`."""
    if label.min() >= 0 and label.max() < n_labels:
        return
    outside = (label < 0) | (label >= n_labels)
    if dontcare is not None:
        outside &= label != dontcare
    if outside.any():
        raise DataError(f"{path} holds {_fault(np.unique(label[outside]).tolist(), n_labels, dontcare)}")


def is_far_above(label: int, other: int) -> bool:
    """Whether a label is so far above the next lower one that it is hardly the next class, like 255."""
    return label > 2 * other + 16


def _fault(wrong: Sequence[int], n_labels: int, dontcare: int | None) -> str:
    """What a message says of sorted labels that are neither a class nor `dontcare`, with the remedy."""
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
    classes, none = option("model.n_labels"), option("data.dontcare")
    if wrong[-1] < n_labels:
        return f"label {shown}; labels start at 0: set {none} to the one that belongs to no class"
    also = f" ({none} is {dontcare})" if dontcare is not None else ""
    if len(wrong) == 1 and dontcare is None and is_far_above(wrong[0], n_labels - 1):
        remedy = f"set {none} {wrong[0]} if it belongs to no class, else {classes} {wrong[0] + 1}"
    else:
        remedy = f"set {classes} to at least {wrong[-1] + 1}, or {none} to the label that belongs to no class"
    return f"label {shown}, but {classes} is {n_labels}{also}; {remedy}"
