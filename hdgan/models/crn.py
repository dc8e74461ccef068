"""The cascaded refinement network (Chen and Koltun 2017, arXiv 1707.09405, section 3).

Layer norm here is `torch.nn.GroupNorm` with one group: statistics over (C, H, W), scale and shift of each channel, as
in the authors' code. `instance_norm_act` on the image as one plane has the same statistics but no scale and shift of
each channel; with these as separate steps it was slower on the CPU than PyTorch's norm, so it is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import plain, prepared_conv
from hdgan.models.inputs import (
    LabelInput,
    NetworkInput,
    add_in_place,
    first_conv,
    input_for,
    planes_conv,
    run_at_multiple,
)

SLOPE = 0.2
"""Of LeakyReLU."""


@plain
class LayerNormAct(nn.GroupNorm):
    """Layer norm over (C, H, W) with scale and shift of each channel, then LeakyReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        return F.leaky_relu(super().forward(x), SLOPE, inplace=True)


class RefinementModule(nn.Module):
    """Two 3x3 convolutions at one resolution, each with layer norm and LeakyReLU.

    The second norm is left to the next module, so that a convolution keeps only its output for the backward pass
    (`recomputed`).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        # Without biases, as in the authors' code.
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = LayerNormAct(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = LayerNormAct(channels)

    def forward(self, condition: NetworkInput, below: tuple[Tensor, nn.Module] | None = None) -> Tensor:
        """Refine to [B, channels, H, W], for `norm2` to follow.

        Args:
            condition: [B, condition_channels, H, W].
            below: features of the module below, of half this resolution or so, and their norm.
        """
        h = first_conv(self.conv1, condition, bias=True) if below is None else self._joined_conv(condition, *below)
        return prepared_conv(self.conv2, h, self.norm1, bias=True, through=(self.norm1,))

    def _joined_conv(self, condition: NetworkInput, features: Tensor, norm: nn.Module) -> Tensor:
        """What the first convolution makes of the features below, normalised and doubled, and of the condition."""
        conv, channels = self.conv1, features.shape[1]
        condition = input_for(condition, [conv])
        doubled = partial(_doubled, norm, condition.shape[2:])
        if isinstance(condition, LabelInput):
            h = prepared_conv(conv, features, doubled, bias=True, channels=slice(channels), through=(norm,))
            return add_in_place(h, planes_conv(conv, condition, channels))
        joined = partial(_joined, doubled, condition)
        return prepared_conv(conv, features, joined, bias=True, through=(norm,))


def _doubled(norm: nn.Module, size: Sequence[int], features: Tensor) -> Tensor:
    """The features below, normalised and at the resolution of the condition."""
    # Corners on corners, as in the authors' code.
    return F.interpolate(norm(features), size=list(size), mode="bilinear", align_corners=True)


def _joined(doubled: Callable[[Tensor], Tensor], condition: Tensor, features: Tensor) -> Tensor:
    return torch.cat([doubled(features), condition], dim=1)


class CascadedRefinement(nn.Module):
    """Refinement modules from coarse to fine, each at twice the resolution of the one before, and a 1x1 convolution.

    Takes any size: inputs that `multiple` does not divide are padded and the output is cropped back.

    Args:
        in_channels: of the condition.
        out_channels: of the image, or of all images that are generated at once.
        widths: channels of each module, coarsest first.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        below = (0, *widths[:-1])
        self.levels = nn.ModuleList(
            RefinementModule(channels + in_channels, width) for channels, width in zip(below, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], out_channels, 1)
        self.multiple = 2 ** (len(widths) - 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, x: NetworkInput) -> Tensor:
        """Map the condition [B, in_channels, H, W] to images [B, out_channels, H, W] around [-1, 1].

        As in the authors' code, they are not bounded; whoever shows or measures them has to do that.

        Raises:
            ValueError: label planes are given together with further channels.
        """
        if isinstance(x, LabelInput) and x.features is not None:
            raise ValueError("CascadedRefinement: expected label planes alone, got further channels behind them")
        x = input_for(x, (level.conv1 for level in self._levels))
        return run_at_multiple(self._run, x, self.multiple)

    @property
    def _levels(self) -> list[RefinementModule]:
        return cast(list[RefinementModule], list(self.levels))

    def _run(self, x: NetworkInput) -> Tensor:
        conditions = _halvings(x, len(self.levels))
        coarsest, *finer = self._levels
        h, below = coarsest(conditions.pop()), coarsest
        for level in finer:
            h, below = level(conditions.pop(), (h, below.norm2)), level
        return prepared_conv(self.head, h, below.norm2, bias=True, through=(below.norm2,))

    def copy_coarse_from(self, smaller: CascadedRefinement) -> None:
        """Start from a cascade with as many or fewer modules: take over its modules, and the head of an equal one.

        Raises:
            RuntimeError: the shapes differ.
        """
        if len(self.levels) == len(smaller.levels):
            self.load_state_dict(smaller.state_dict())
            return
        for mine, theirs in zip(self.levels, smaller.levels, strict=False):
            mine.load_state_dict(theirs.state_dict())


def _halvings(x: NetworkInput, count: int) -> list[NetworkInput]:
    """x, and its averages over 2x2 pixels, repeatedly: `count` levels, finest first."""
    if isinstance(x, LabelInput):
        x.require_full_resolution()
        return [LabelInput(x.planes, level=level, window=2) for level in range(count)]
    levels = [x]
    while len(levels) < count:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return [*levels]
