"""Moving average of G's and E's weights: what samples, validation and inference use."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hdgan.families import ImageModel


class MovingAverage:
    """Exponential moving average with warm-up: after t steps the decay is at most (1 + t) / (10 + t).

    Args:
        source: the model being trained; its weights are the first average.
        decay: per step.

    Attributes:
        model: the averaged model, without discriminator.
    """

    def __init__(self, source: ImageModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.model.discriminator = None
        self._averages: list[Tensor] = list(self.model.parameters())
        sources = dict(source.named_parameters())
        self._sources: list[Tensor] = [sources[name] for name, _ in self.model.named_parameters()]
        statistics = dict(source.named_buffers())
        self._statistics = [(mine, statistics[name]) for name, mine in self.model.named_buffers()]

    @torch.no_grad()
    def reset(self) -> None:
        """Set the average to the current trained weights."""
        for average, source in zip(self._averages, self._sources, strict=True):
            average.copy_(source)
        self._follow()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the trained weights after their step number `step` of the stage, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._averages, self._sources, step)
        self._follow()

    def _follow(self) -> None:
        """Copy what is not a weight: running statistics of batch norms, which already are averages, and the estimates
        of spectral norms, which those of the averaged weights are close to."""
        for mine, theirs in self._statistics:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()
