"""Images that are enlarged region by region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.regions.boxes import Aligned, Box, Nearest, Reach
from hdgan.regions.nodes import Node


class NearestEnlargement(Node):
    """F.interpolate with mode nearest, to a larger size."""

    def __init__(self, x: Node, size: tuple[int, int]) -> None:
        batch, channels, *small = x.shape
        super().__init__((x,), (batch, channels, *size), x.dtype)
        self._axes = Nearest(small[0], size[0]), Nearest(small[1], size[1])

    def reach(self, k: int) -> tuple[Reach, Reach]:
        return self._axes

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        (x,), (given,) = inputs, boxes
        factors = {axis.large / axis.small for axis in self._axes}
        if len(factors) == 1 and min(factors).is_integer():
            factor = int(factors.pop())
            y = F.interpolate(x, scale_factor=float(factor), mode="nearest")
            rows, columns = box.slices(Box(*(side * factor for side in given)))
            return y[:, :, rows, columns]
        for dim, axis, span, known in zip((2, 3), self._axes, box.spans, given.spans, strict=True):
            x = x.index_select(dim, torch.from_numpy(axis.sources(span) - known[0]).to(x.device))
        return x


class AlignedEnlargement(Node):
    """F.interpolate with mode bilinear and align_corners."""

    def __init__(self, x: Node, size: tuple[int, int]) -> None:
        batch, channels, *small = x.shape
        super().__init__((x,), (batch, channels, *size), x.dtype)
        self._axes = Aligned(small[0], size[0]), Aligned(small[1], size[1])

    def reach(self, k: int) -> tuple[Reach, Reach]:
        return self._axes

    def compute(self, box: Box, inputs: Sequence[Tensor], boxes: Sequence[Box]) -> Tensor:
        (x,), (given,) = inputs, boxes
        for dim, axis, span, known in zip((2, 3), self._axes, box.spans, given.spans, strict=True):
            before, weight = axis.sources(span)
            first = torch.from_numpy(before - known[0]).to(x.device)
            second = (first + 1).clamp(max=known[1] - known[0] - 1)
            share = torch.from_numpy(weight).to(x).view(-1, *[1] * (3 - dim))
            x = torch.lerp(x.index_select(dim, first), x.index_select(dim, second), share)
        return x
