"""The feature encoder E (paper section 3.4): low-dimensional features, averaged per object instance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import init_weights
from hdgan.models.generator import STEM_PAD, Trunk
from hdgan.models.inputs import run_at_multiple
from hdgan.models.options import UpsampleMode
from hdgan.ops import InstanceIndex, avg_pyramid, instance_mean
from hdgan.ops.instance_norm_act import PadMode


class FeatureEncoder(nn.Module):
    """Encoder-decoder whose output is averaged over each instance.

    Takes any size, as the generators do.

    Args:
        in_channels: of the photo.
        out_channels: features, 3 in the paper.
        nef: channels of the first convolution.
        n_downsample: stride-2 convolutions.
        reduction: how often the photo is halved before it is encoded; the features are upsampled by nearest neighbour.
        pad_mode: padding of the 7x7 convolutions.
        upsample: "transposed" or "resize".
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        nef: int = 16,
        n_downsample: int = 4,
        reduction: int = 0,
        pad_mode: PadMode = "reflect",
        upsample: UpsampleMode = "transposed",
    ) -> None:
        super().__init__()
        self.trunk = Trunk(in_channels, nef, n_downsample, 0, pad_mode, upsample)
        self.head = nn.Conv2d(nef, out_channels, 2 * STEM_PAD + 1)
        self.multiple = 2**n_downsample
        self.reduction = reduction
        init_weights(self)

    def forward(self, photo: Tensor, ids: Tensor | InstanceIndex) -> Tensor:
        """Encode a photo [B, in_channels, H, W] in [-1, 1] and average over the instances of ids [B, H, W].

        Returns:
            [B, out_channels, H, W] in [-1, 1], constant on each instance.
        """
        return instance_mean(self.pixel_features(photo), ids)

    def pixel_features(self, photo: Tensor) -> Tensor:
        """The features [B, out_channels, H, W] in [-1, 1] before they are averaged."""
        features = run_at_multiple(self._run, avg_pyramid(photo, self.reduction)[-1], self.multiple)
        return F.interpolate(features, size=photo.shape[2:], mode="nearest") if self.reduction else features

    def _run(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.trunk(photo, self.head))
