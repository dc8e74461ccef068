"""Norms with the same interface, each with the activation that follows.

`InstanceNorm` has no parameters and is fused with the activation. `BatchNorm` has scale, shift and running statistics;
it normalises by the statistics of the batch at test time as well (Isola et al. 2017, section 3.3). With a batch of one
image the two differ only by scale and shift.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import plain
from hdgan.models.options import NormKind
from hdgan.ops import instance_norm_act
from hdgan.ops.instance_norm_act import Activation

NEGATIVE_SLOPE = 0.2
_IN_PLACE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu_,
    "leaky_relu": partial(F.leaky_relu_, negative_slope=NEGATIVE_SLOPE),
}


@plain
class InstanceNorm(nn.Module):
    """Statistics of each plane; neither scale nor shift."""

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """Normalise and activate [B, C, H, W]."""
        return instance_norm_act(x, activation=activation, negative_slope=NEGATIVE_SLOPE)


class BatchNorm(nn.BatchNorm2d):
    """Statistics of the batch, in training and at test time; scale and shift.

    Running statistics are kept in training and never used: they are for exported weights.
    """

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """Normalise and activate [B, C, H, W].

        Raises:
            ValueError: a batch of one pixel, which has no variance.
        """
        mean, variance = None, None
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            mean, variance = self.running_mean, self.running_var
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, True, self.momentum or 0.0, self.eps)
        return _IN_PLACE[activation](y)


_NORMS: dict[NormKind, Callable[[int], InstanceNorm | BatchNorm]] = {
    "instance": lambda _: InstanceNorm(),
    "batch": BatchNorm,
}


def make_norm(kind: NormKind, channels: int) -> InstanceNorm | BatchNorm:
    """A norm of [B, channels, H, W].

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in _NORMS:
        raise ValueError(f"make_norm: expected kind {' or '.join(_NORMS)}, got {kind!r}")
    return _NORMS[kind](channels)
