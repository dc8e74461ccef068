"""Pixel accuracy and intersection over union, from one confusion matrix over all images.

The matrix is counted by `torch.bincount` rather than by torchmetrics. Its integers are exact, one matrix gives every
score, and training, which may choose its best checkpoint by mean IoU, starts without importing that library.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised."""

    label: int
    pixels: int
    """Pixels that have the label."""
    accuracy: float | None
    """Share of them that were recognised; None for a class that does not occur in the label maps."""
    iou: float | None
    """Intersection over union of label maps and predictions; None for a class that occurs in neither."""


class Confusion:
    """Counts predictions against label maps.

    Pixels whose label is no class (`dontcare`) are not counted at all, whatever is predicted there. If `dontcare` is
    one of the classes, that class has no score.

    Args:
        n_labels: number of classes.
        dontcare: label of pixels that have no class.
    """

    def __init__(self, n_labels: int, dontcare: int | None = None) -> None:
        self.n_labels = n_labels
        self.dontcare = dontcare
        self.matrix = torch.zeros(n_labels, n_labels, dtype=torch.int64)  # [label, prediction]

    def count(self, label: Tensor, predicted: Tensor) -> Tensor:
        """Count the pixels of images.

        Args:
            label: [B, H, W] integer, each in [0, n_labels) or `dontcare`.
            predicted: [B, H, W] integer in [0, n_labels).

        Returns:
            [2, K] int64 on the CPU: the places in the flattened matrix that are not 0, and the pixels of each.
        """
        label, predicted = label.long().flatten(), predicted.long().flatten()
        counted = (label >= 0) & (label < self.n_labels)
        if self.dontcare is not None:
            counted &= label != self.dontcare
        pixels = torch.bincount(label[counted] * self.n_labels + predicted[counted])
        places = pixels.nonzero().flatten()
        return torch.stack([places, pixels[places]]).cpu()

    def add(self, counts: Tensor) -> None:
        """Add what `count` has counted."""
        self.matrix.view(-1).index_add_(0, *counts)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels whose class was recognised; None if no pixel was counted."""
        total = int(self.matrix.sum())
        return int(self.matrix.trace()) / total if total else None

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that occur in label maps or predictions; None if there are none."""
        known = [score.iou for score in self.classes() if score.iou is not None]
        return sum(known) / len(known) if known else None

    def classes(self) -> list[ClassScore]:
        """The scores of all classes but `dontcare`."""
        hits, labels, predictions = (
            counts.tolist() for counts in (self.matrix.diagonal(), self.matrix.sum(1), self.matrix.sum(0))
        )
        scores = []
        for label, (hit, pixels, predicted) in enumerate(zip(hits, labels, predictions, strict=True)):
            if label != self.dontcare:
                union = pixels + predicted - hit
                scores.append(
                    ClassScore(label, pixels, hit / pixels if pixels else None, hit / union if union else None)
                )
        return scores
