"""Look-alikes of the networks of pytorch-CycleGAN-and-pix2pix, and of CUT, which grew out of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.benchmarks.foreign.layers import SLOPE, ForeignBlock, down_layers, head_layers, norm, patch_layers, up_layers


class CycleGanDiscriminator(nn.Module):
    """CycleGAN's NLayerDiscriminator."""

    def __init__(self, channels: int, width: int, n_layers: int = 3) -> None:
        super().__init__()
        groups = patch_layers(channels, width, n_layers, padding=1)
        self.model = nn.Sequential(*(layer for group in groups for layer in group))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class BlurDown(nn.Module):
    """CUT's downsampling: a fixed blur by a depthwise convolution of stride 2, behind a padding of its own."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (line[:, None] * line / 16).repeat(channels, 1, 1, 1))
        self.pad = nn.ReflectionPad2d([1, 1, 1, 1])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """CUT's upsampling: a fixed interpolation by a depthwise transposed convolution, whose margin is cut off."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (line[:, None] * line / 16).repeat(channels, 1, 1, 1))
        self.pad = nn.ReplicationPad2d([1, 1, 1, 1])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=2, groups=x.shape[1])
        return y[:, :, 1:, 1:][:, :, :-1, :-1]


class CycleGanGenerator(nn.Module):
    """CycleGAN's generator, or CUT's with `blur`, whose `forward` also gives the outputs of layers by number."""

    def __init__(self, channels: int, width: int, n_blocks: int = 6, blur: bool = False, dropout: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), norm(width), nn.ReLU(True)]
        for _ in range(2):
            down = down_layers(width, nn.ReLU(True))
            width *= 2
            blurred: list[nn.Module] = [nn.Conv2d(width // 2, width, 3, padding=1), *down[1:], BlurDown(width)]
            layers += blurred if blur else down
        layers += [ForeignBlock(width, nn.ReLU(True), dropout) for _ in range(n_blocks)]
        for _ in range(2):
            up = up_layers(width, nn.ReLU(True))
            blurred = [BlurUp(width), nn.Conv2d(width, width // 2, 3, padding=1), *up[1:]]
            layers += blurred if blur else up
            width //= 2
        self.model = nn.Sequential(*layers, *head_layers(width, 3))

    def forward(self, x: Tensor, layers: Sequence[int] = (), encode_only: bool = False) -> Any:
        if not layers:
            return self.model(x)
        features = []
        for number, layer in enumerate(self.model):
            x = layer(x)
            if number in layers:
                features.append(x)
            if encode_only and number == layers[-1]:
                return features
        return x, features


class CycleGanUNetLevel(nn.Module):
    """A level of CycleGAN's U-Net and all below it.

    The LeakyReLU at its start works in place, so the skip connection carries the activated input.
    """

    def __init__(self, outer: int, inner: int, below: nn.Module | None = None, channels: int | None = None) -> None:
        super().__init__()
        self.outermost = channels is not None
        down = nn.Conv2d(channels or outer, inner, 4, stride=2, padding=1)
        up = nn.ConvTranspose2d(inner if below is None else inner * 2, outer, 4, stride=2, padding=1)
        if self.outermost:
            assert below is not None
            self.model = nn.Sequential(down, below, nn.ReLU(True), up, nn.Tanh())
        else:
            middle = [] if below is None else [norm(inner), below]
            self.model = nn.Sequential(nn.LeakyReLU(SLOPE, True), down, *middle, nn.ReLU(True), up, norm(outer))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class CycleGanUNet(nn.Module):
    """CycleGAN's and pix2pix' U-Net of 1 + len(factors) levels."""

    def __init__(self, channels: int, width: int, factors: Sequence[int] = (1, 2, 4, 8, 8)) -> None:
        super().__init__()
        level: nn.Module = CycleGanUNetLevel(width * factors[-1], width * factors[-1])
        for outer, inner in reversed(list(pairwise(factors))):
            level = CycleGanUNetLevel(width * outer, width * inner, level)
        self.model = CycleGanUNetLevel(3, width, level, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
