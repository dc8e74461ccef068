"""Averages over areas without a tensor whose size depends on their number."""

from __future__ import annotations

import torch

from hdgan.export.programs import area_means
from hdgan.ops import instance_mean


def test_areas_have_the_means_of_instances() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 13, 17)
    ids = torch.randint(-2, 3, (3, 13, 17)) * 2**29
    ids[1] = 7
    torch.testing.assert_close(area_means(x, ids), instance_mean(x, ids), rtol=1e-5, atol=1e-6)
    each_its_own = torch.arange(13 * 17).view(1, 13, 17).expand(3, -1, -1)
    torch.testing.assert_close(area_means(x, each_its_own), x)
