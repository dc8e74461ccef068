"""The random numbers of a network that runs region by region: the same as those of a run at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdgan.models.draws import DROPOUT, Draws
from hdgan.regions.boxes import Box
from hdgan.regions.nodes import Source
from hdgan.regions.run import RegionRun
from hdgan.regions.tensor import RegionTensor

_PART = 2**24
"""Numbers that are drawn at once on a CPU, a multiple of 16."""


class RegionDraws(Draws):
    """Draws whole planes, one after the other, and keeps them in the storage of a run.

    On a CPU, a plane is drawn in parts: PyTorch makes normal numbers in groups of 16, so whole groups give the numbers
    of one draw.

    Args:
        run: of which the random images are part.
    """

    def __init__(self, run: RegionRun) -> None:
        self._run = run

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """As of `Draws`."""
        run, dtype = self._run, like.dtype
        batch, channels, height, width = shape
        assert batch == channels == 1
        held = run.storage.allocate(shape, dtype)
        rows = 16 * max(1, _PART // (16 * width)) if run.device.type == "cpu" else height
        tops = list(range(0, height, rows))
        if len(tops) > 1 and (height - tops[-1]) * width < 16:
            tops.pop()  # PyTorch draws less than 16 numbers in another way
        for top, bottom in zip(tops, [*tops[1:], height], strict=True):
            if not run.rehearsal:
                part = torch.randn(1, 1, bottom - top, width, dtype=dtype, device=run.device)
                held.write(Box(top, bottom, 0, width), part)
        return RegionTensor.of(Source(held, shape, dtype), run)

    def dropout(self, h: Tensor) -> Tensor:
        """As of `Draws`."""
        run = self._run
        held = run.storage.allocate(tuple(h.shape), torch.bool)
        if not run.rehearsal:
            ones = torch.ones(h.shape, device=run.device).contiguous(memory_format=torch.channels_last)
            kept = super().dropout(ones) > 0
            held.write(Box.whole(*h.shape[2:]), kept)
        mask = RegionTensor.of(Source(held, tuple(h.shape), torch.bool), run)
        return h * mask * (1 / (1 - DROPOUT))
