"""Averages and labels of areas without a tensor whose size depends on their number."""

from __future__ import annotations

import torch

from hdgan.export.programs import area_labels, area_means
from hdgan.ops import instance_index, instance_mean
from hdgan.styles.table import classes_of


def test_areas_have_the_means_of_instances() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 13, 17)
    ids = torch.randint(-2, 3, (3, 13, 17)) * 2**29
    ids[1] = 7
    torch.testing.assert_close(area_means(x, ids), instance_mean(x, ids), rtol=1e-5, atol=1e-6)
    each_its_own = torch.arange(13 * 17).view(1, 13, 17).expand(3, -1, -1)
    torch.testing.assert_close(area_means(x, each_its_own), x)


def test_areas_have_the_classes_of_instances() -> None:
    torch.manual_seed(0)
    ids = torch.randint(-2, 40, (3, 13, 17)) * 2**25
    label = torch.randint(-1, 5, (3, 13, 17), dtype=torch.int32)  # 4 classes, and a label on either side of them
    index = instance_index(ids)
    expected = torch.from_numpy(classes_of(index, label, 1000))[index.rows.long()]
    assert (expected != label).any()
    assert torch.equal(area_labels(label, ids, 4), expected)


def test_of_labels_with_as_many_pixels_the_smallest_counts() -> None:
    label = torch.tensor([[[3, 1, 1, 3], [2, 2, 0, 9]]])
    ids = torch.tensor([[[7, 7, 7, 7], [5, 5, -5, -5]]])
    assert area_labels(label, ids, 4).tolist() == [[[1, 1, 1, 1], [2, 2, 0, 0]]]
