"""Noise inside a generator, from which it makes texture.

A generator of convolutions and instance norms is translation-equivariant: where its input is constant, its output is
constant too, except for what borders and edges cause. It has nothing to make texture of. Noise planes give it that, as
in StyleGAN (Karras et al. 2019, section 3.2), and make several images of one input possible.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdgan.models.blocks import INIT_STD
from hdgan.models.draws import draws


class Noise(nn.Module):
    """Adds a plane of Gaussian noise, the same for all channels, times a learned scale of each channel.

    The noise is drawn anew in each call, in training and at test time: from PyTorch's generator of the device, or where
    `hdgan.models.draws` says.

    Args:
        channels: of the features.
        std: initial standard deviation of what is added.
    """

    def __init__(self, channels: int, std: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), std))

    def forward(self, h: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        batch, _, height, width = h.shape
        plane = draws().normal((batch, 1, height, width), h)
        return torch.addcmul(h, self.scale.to(h.dtype).view(-1, 1, 1), plane)


def noise_after(conv: nn.Conv2d | nn.ConvTranspose2d, strength: float) -> nn.Module:
    """The noise that is added to what a new convolution makes of normalised and activated features.

    Args:
        conv: one with weights as `init_weights` draws them.
        strength: initial standard deviation of the noise, relative to that of the convolution's output; 0 adds none.
    """
    if not strength:
        return nn.Identity()
    taps = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    if isinstance(conv, nn.ConvTranspose2d):
        taps //= conv.stride[0] * conv.stride[1]  # so many of them meet in a pixel, on average
    # A normalised feature that went through a ReLU has a mean square of 1/2.
    return Noise(conv.out_channels, strength * INIT_STD * (taps / 2) ** 0.5)
