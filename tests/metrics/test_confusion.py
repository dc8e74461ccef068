"""Pixel accuracy and IoU against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from hdgan.metrics.confusion import Confusion

LABEL = torch.tensor([[[0, 0, 0, 1], [1, 1, 9, 9]]])
PREDICTED = torch.tensor([[[0, 0, 1, 1], [1, 2, 0, 3]]])


def test_the_scores_of_an_example() -> None:
    counts = Confusion(5, dontcare=9)
    counts.add(counts.count(LABEL, PREDICTED))
    # Of the pixels that count, 0 0 0 1 1 1, were taken for 0 0 1 1 1 2: four of six are right.
    assert counts.matrix[:3, :3].tolist() == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert counts.pixel_accuracy == 4 / 6
    zero, one, two, three, four = counts.classes()
    assert (zero.pixels, zero.accuracy, zero.iou) == (3, 2 / 3, 2 / 3)  # 2 of 3 | 1 missed
    assert (one.pixels, one.accuracy, one.iou) == (3, 2 / 3, 2 / 4)  # 2 of 3 + 1 taken for it
    assert (two.pixels, two.accuracy, two.iou) == (0, None, 0.0)  # seen where it is not: it counts
    # Class 3 was seen only where no class is, class 4 nowhere: neither enters the mean.
    assert [(score.accuracy, score.iou) for score in (three, four)] == [(None, None)] * 2
    assert counts.mean_iou == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_pictures_add_up_to_one_matrix() -> None:
    whole, parts = Confusion(4, dontcare=9), Confusion(4, dontcare=9)
    whole.add(whole.count(torch.cat([LABEL, LABEL.flip(2)]), torch.cat([PREDICTED, PREDICTED])))
    parts.add(parts.count(LABEL, PREDICTED))
    parts.add(parts.count(LABEL.flip(2).to(torch.uint8), PREDICTED))
    assert torch.equal(whole.matrix, parts.matrix)
    assert int(whole.matrix.sum()) == 12


def test_a_dontcare_among_the_classes_has_no_score() -> None:
    counts = Confusion(3, dontcare=0)
    counts.add(counts.count(torch.tensor([[[0, 0, 1, 2]]]), torch.tensor([[[1, 0, 0, 2]]])))
    assert [score.label for score in counts.classes()] == [1, 2]
    assert counts.pixel_accuracy == 1 / 2
    assert counts.mean_iou == (0 + 1) / 2  # what was taken for no class is wrong all the same


def test_nothing_counted_has_no_score() -> None:
    counts = Confusion(2, dontcare=255)
    counts.add(counts.count(torch.full((1, 2, 2), 255), torch.zeros(1, 2, 2, dtype=torch.int64)))
    assert counts.pixel_accuracy is None
    assert counts.mean_iou is None
