"""What the networks are made of.

A convolution that feeds an instance norm without affine parameters has a dead bias: the norm subtracts it again. The
bias is kept, since NVIDIA's checkpoints carry it, and left out of the computation (`normalised_conv`), which saves the
addition in the forward pass and a reduction over the whole gradient in the backward pass.

A convolution keeps one tensor for its backward pass, its output; a residual block its sum as well. What the next
convolution reads, the normalised and padded activation, is made again from it (`recomputed`). The generators of pix2pix
have no part in that, since batch norms and dropout cannot be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hdgan.models.config import UpsampleMode
from hdgan.ops import backend, instance_norm_act
from hdgan.ops._backend import forced_backend
from hdgan.ops.instance_norm_act import PadMode, pad2d

T = TypeVar("T")
_recompute = False


@contextmanager
def recomputing(enabled: bool = True) -> Iterator[None]:
    """Make networks that run inside keep less for their backward pass, which then repeats norms and paddings."""
    global _recompute
    before, _recompute = _recompute, enabled
    try:
        yield
    finally:
        _recompute = before


def recomputed(function: Callable[..., T], *tensors: Tensor) -> T:
    """Run function(*tensors). Inside `recomputing`, what arises on the way is made again in the backward pass.

    The last operation is not repeated: what it saves is its inputs.
    """
    if not (_recompute and torch.is_grad_enabled()):
        return function(*tensors)
    forced = forced_backend()
    if forced is not None:
        function = partial(_run_on, forced, function)
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _run_on(name: str, function: Callable[..., T], *tensors: Tensor) -> T:
    """On a backend that was forced in the forward pass, also where the backward pass runs outside of its context."""
    with backend(name):
        return function(*tensors)


def norm_relu_conv(conv: Callable[[Tensor], Tensor], x: Tensor, pad: int, pad_mode: PadMode) -> Tensor:
    """Normalise, activate, pad and convolve x: one layer, which keeps x alone."""
    return recomputed(lambda x: conv(instance_norm_act(x, activation="relu", pad=pad, pad_mode=pad_mode)), x)


def normalised_conv(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Convolve without the bias, for an instance norm to follow."""
    if isinstance(conv, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, conv.weight, None, conv.stride, conv.padding, conv.output_padding)  # type: ignore[arg-type]
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


def init_weights(module: nn.Module) -> None:
    """Draw all convolution weights from N(0, 0.02), and scales of batch norms from N(1, 0.02), as the originals do.

    Biases stay as PyTorch draws them, as in NVIDIA/pix2pixHD.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)


def zero_biases(module: nn.Module) -> None:
    """Set all biases to 0, as both codes of pix2pix do."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)


def down_conv(channels: int) -> nn.Conv2d:
    """A 3x3 convolution that halves the resolution and doubles the channels."""
    return nn.Conv2d(channels, channels * 2, 3, stride=2, padding=1)


class ResizeConv(nn.Conv2d):
    """Nearest-neighbour doubling, then a 3x3 convolution: upsampling without checkerboard."""


def up_conv(channels: int, mode: UpsampleMode) -> nn.ConvTranspose2d | ResizeConv:
    """A 3x3 convolution that doubles the resolution and halves the channels."""
    if mode == "transposed":
        return nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)
    return ResizeConv(channels, channels // 2, 3)


def upsample(conv: nn.Module, x: Tensor, pad_mode: PadMode) -> Tensor:
    """Apply an `up_conv`, for an instance norm to follow: [B, C, H, W] -> [B, C / 2, 2H, 2W]."""
    if isinstance(conv, ResizeConv):
        x = pad2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), 1, pad_mode)
    assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
    return normalised_conv(conv, x)


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, add (paper appendix; He et al. 2016).

    Works on padded tensors, so that each norm writes straight into the padded input of the next convolution.
    """

    PAD = 1

    def __init__(self, channels: int, pad_mode: PadMode) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.pad_mode = pad_mode

    def forward(self, padded: Tensor, pad: int) -> Tensor:
        """Map [B, C, H + 2, W + 2] to [B, C, H + 2 pad, W + 2 pad]."""
        y = normalised_conv(self.conv1, padded)
        conv2 = partial(normalised_conv, self.conv2)
        y = norm_relu_conv(conv2, y, self.PAD, self.pad_mode)
        return instance_norm_act(y, residual=padded, pad=pad, pad_mode=self.pad_mode)


def residual_chain(blocks: Sequence[nn.Module] | nn.ModuleList, padded: Tensor) -> Tensor:
    """Run residual blocks one after the other: padded by 1 if there are any, [B, C, H, W] out."""
    for i, block in enumerate(blocks):
        padded = block(padded, pad=ResidualBlock.PAD if i + 1 < len(blocks) else 0)
    return padded


def run_at_multiple(network: Callable[[Tensor], Tensor], x: Tensor, multiple: int, least: int = 2) -> Tensor:
    """Pad x (`pad_to_multiple`), run, and crop back.

    So a network whose levels must divide evenly takes any size, and its output has the size of its input.
    """
    height, width = x.shape[2:]
    return network(pad_to_multiple(x, multiple, least))[:, :, :height, :width]


def pad_to_multiple(x: Tensor, multiple: int, least: int = 2) -> Tensor:
    """Repeat the right and bottom edge of x until height and width are multiples of `multiple`.

    A level that is coarser by `multiple` gets `least` pixels or more, two by default, as reflection needs.
    """
    bottom, right = (max(math.ceil(size / multiple), least) * multiple - size for size in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
