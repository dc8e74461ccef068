"""The coarse-to-fine generator (paper section 3.2, figure 3): G1, and local enhancers around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdgan.models.blocks import (
    ResidualBlock,
    as_function,
    conv_by_rows,
    down_conv,
    enlarged,
    init_weights,
    norm_relu_conv,
    norm_relu_up,
    residual_chain,
    runs_by_rows,
    up_conv,
)
from hdgan.models.inputs import NetworkInput, first_conv, input_for, input_pyramid, run_at_multiple
from hdgan.models.noise import noise_after
from hdgan.models.options import UpsampleMode
from hdgan.ops import instance_norm_act
from hdgan.ops.instance_norm_act import PadMode

STEM_PAD = 3
"""Padding of the 7x7 convolutions at both ends."""


def finish(h: Tensor, head: nn.Module | None, pad_mode: PadMode) -> Tensor:
    """Normalise the last convolution's output, and apply the 7x7 convolution that ends a network, if it is given."""
    if head is None:
        return instance_norm_act(h, activation="relu")
    if isinstance(head, nn.Conv2d) and runs_by_rows(head, h):
        return conv_by_rows(head, instance_norm_act(h, activation="relu", pad=STEM_PAD, pad_mode=pad_mode))
    return norm_relu_conv(head, h, STEM_PAD, pad_mode, bias=True)


class Trunk(nn.Module):
    """G1 without its last convolution: 7x7 convolution, downsampling, residual blocks, upsampling."""

    def __init__(
        self,
        in_channels: int,
        ngf: int,
        n_downsample: int,
        n_blocks: int,
        pad_mode: PadMode,
        upsample: UpsampleMode,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [ngf * 2**i for i in range(n_downsample + 1)]
        self.stem = nn.Conv2d(in_channels, ngf, 2 * STEM_PAD + 1)
        self.downs = nn.ModuleList(down_conv(width) for width in widths[:-1])
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], pad_mode) for _ in range(n_blocks))
        self.ups = nn.ModuleList(up_conv(width, upsample) for width in reversed(widths[1:]))
        self.noises = nn.ModuleList(noise_after(conv, noise) for conv in ((self.stem, *self.downs)[-1], *self.ups))
        self.pad_mode, self.upsample = pad_mode, upsample

    def forward(self, x: NetworkInput, head: nn.Module | None = None) -> Tensor:
        """Map [B, in_channels, H, W] to features [B, ngf, H, W], or to a 7x7 convolution of them."""
        h = first_conv(self.stem, x, STEM_PAD, self.pad_mode)
        for down in self.downs:
            h = norm_relu_conv(down, h, 0, self.pad_mode)
        first_noise, *noises = self.noises
        h = first_noise(h)
        if self.blocks:
            h = instance_norm_act(h, activation="relu", pad=ResidualBlock.PAD, pad_mode=self.pad_mode)
            h = residual_chain(self.blocks, h)
        for i, (up, noise) in enumerate(zip(self.ups, noises, strict=True)):
            if i == 0 and self.blocks:  # which end with a norm
                h = as_function(up)(enlarged(h, self.upsample, self.pad_mode))
            else:
                h = norm_relu_up(up, h, self.upsample, self.pad_mode)
            h = noise(h)
        return finish(h, head, self.pad_mode)


class GlobalGenerator(nn.Module):
    """G1: the global generator.

    Takes any size: inputs that `multiple` does not divide are padded and the output is cropped back.

    Args:
        in_channels: of the condition and, if any, the features.
        out_channels: of the image.
        ngf: channels of the first convolution.
        n_downsample: stride-2 convolutions.
        n_blocks: residual blocks.
        pad_mode: padding of the 7x7 convolutions and the residual blocks.
        upsample: "transposed" or "resize".
        noise: initial standard deviation of the noise, relative to the features'; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 64,
        n_downsample: int = 4,
        n_blocks: int = 9,
        pad_mode: PadMode = "reflect",
        upsample: UpsampleMode = "transposed",
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(in_channels, ngf, n_downsample, n_blocks, pad_mode, upsample, noise)
        self.head = nn.Conv2d(ngf, out_channels, 2 * STEM_PAD + 1)
        self.multiple = 2**n_downsample
        init_weights(self)

    def forward(self, x: NetworkInput) -> Tensor:
        """Map [B, in_channels, H, W] to an image [B, out_channels, H, W] in [-1, 1]."""
        return run_at_multiple(self._run, input_for(x, [self.trunk.stem], STEM_PAD), self.multiple)

    def _run(self, x: NetworkInput) -> Tensor:
        return torch.tanh(self.trunk(x, self.head))


class Enhancer(nn.Module):
    """One local enhancer: its own downsampling half, the sum with the lower level, and its upsampling half."""

    def __init__(
        self, in_channels: int, ngf: int, n_blocks: int, pad_mode: PadMode, upsample: UpsampleMode, noise: float = 0.0
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, ngf, 2 * STEM_PAD + 1)
        self.down = down_conv(ngf)
        self.blocks = nn.ModuleList(ResidualBlock(ngf * 2, pad_mode) for _ in range(n_blocks))
        self.up = up_conv(ngf * 2, upsample)
        self.noise = noise_after(self.up, noise)
        self.pad_mode, self.upsample = pad_mode, upsample

    def forward(self, x: NetworkInput, coarse: Tensor, head: nn.Module | None = None) -> Tensor:
        """Map the input [B, in_channels, H, W] and the lower level's last features [B, 2 ngf, H / 2, W / 2] to features
        [B, ngf, H, W], or to a 7x7 convolution of them."""
        h = first_conv(self.stem, x, STEM_PAD, self.pad_mode)
        h = norm_relu_conv(self.down, h, 0, self.pad_mode)
        pad = ResidualBlock.PAD if self.blocks else 0
        h = instance_norm_act(h, residual=coarse, activation="relu", pad=pad, pad_mode=self.pad_mode)
        h = residual_chain(self.blocks, h)
        h = self.noise(as_function(self.up)(enlarged(h, self.upsample, self.pad_mode)))
        return finish(h, head, self.pad_mode)


class LocalEnhancer(nn.Module):
    """G2: the global generator without its last convolution, and `n_enhancers` local enhancers around it.

    Takes any size, as `GlobalGenerator` does.

    Args:
        in_channels: of the condition and, if any, the features.
        out_channels: of the image.
        ngf: channels of the finest level; the inner global generator has ngf * 2^n_enhancers.
        n_downsample: stride-2 convolutions of the global generator.
        n_blocks: residual blocks of the global generator.
        n_enhancers: local enhancers, coarse to fine.
        n_blocks_local: residual blocks of each enhancer.
        pad_mode: padding of the 7x7 convolutions and the residual blocks.
        upsample: "transposed" or "resize".
        noise: initial standard deviation of the noise, relative to the features'; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        ngf: int = 32,
        n_downsample: int = 4,
        n_blocks: int = 9,
        n_enhancers: int = 1,
        n_blocks_local: int = 3,
        pad_mode: PadMode = "reflect",
        upsample: UpsampleMode = "transposed",
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.coarse = Trunk(in_channels, ngf * 2**n_enhancers, n_downsample, n_blocks, pad_mode, upsample, noise)
        self.enhancers = nn.ModuleList(
            Enhancer(in_channels, ngf * 2**level, n_blocks_local, pad_mode, upsample, noise)
            for level in reversed(range(n_enhancers))
        )
        self.head = nn.Conv2d(ngf, out_channels, 2 * STEM_PAD + 1)
        self.multiple = 2 ** (n_downsample + n_enhancers)
        init_weights(self)

    def forward(self, x: NetworkInput) -> Tensor:
        """Map [B, in_channels, H, W] to an image [B, out_channels, H, W] in [-1, 1]."""
        stems = (part.stem for part in (self.coarse, *self.enhancers))
        return run_at_multiple(self._run, input_for(x, stems, STEM_PAD), self.multiple)

    def _run(self, x: NetworkInput) -> Tensor:
        *finer, coarsest = input_pyramid(x, len(self.enhancers))
        h = self.coarse(coarsest)
        heads = [None] * (len(finer) - 1) + [self.head]
        for enhancer, level, head in zip(self.enhancers, reversed(finer), heads, strict=True):
            h = enhancer(level, h, head)
        return torch.tanh(h)

    def copy_coarse_from(self, smaller: GlobalGenerator | LocalEnhancer) -> None:
        """Start from a generator with fewer enhancers: take over all of it but its last convolution.

        Raises:
            RuntimeError: the shapes differ.
        """
        if isinstance(smaller, GlobalGenerator):
            self.coarse.load_state_dict(smaller.trunk.state_dict())
            return
        self.coarse.load_state_dict(smaller.coarse.state_dict())
        for mine, theirs in zip(self.enhancers, smaller.enhancers, strict=False):
            mine.load_state_dict(theirs.state_dict())
