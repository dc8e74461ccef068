"""Multi-scale discriminators (paper section 3.2): the same PatchGAN on an image pyramid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import init_weights, normalised_conv
from hdgan.ops import avg_pyramid, instance_norm_act

NEGATIVE_SLOPE = 0.2
MAX_CHANNELS = 512


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): 4x4 convolutions with padding 2, `n_layers` of them with stride 2."""

    def __init__(self, in_channels: int, ndf: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        widths = [in_channels, *(min(ndf * 2**i, MAX_CHANNELS) for i in range(n_layers + 1)), 1]
        strides = [2] * n_layers + [1, 1]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 4, stride, padding=2) for i, stride in enumerate(strides)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map [B, in_channels, H, W] to the features of each layer; the last is the score of each patch."""
        first, *middle, last = self.convs
        features = [F.leaky_relu(first(x), NEGATIVE_SLOPE, inplace=True)]
        for conv in middle:
            h = normalised_conv(conv, features[-1])  # type: ignore[arg-type]
            features.append(instance_norm_act(h, activation="leaky_relu", negative_slope=NEGATIVE_SLOPE))
        features.append(last(features[-1]))
        return features


class MultiscaleDiscriminator(nn.Module):
    """`n_scales` PatchGANs; scales[0] sees the full resolution, each further one half of that before.

    Args:
        in_channels: of the condition and the image.
        ndf: channels of the first convolution.
        n_layers: stride-2 convolutions of each PatchGAN.
        n_scales: number of PatchGANs (num_D in NVIDIA's code, which counts them from the coarsest).
        intermediate_features: return all features, for feature matching, or the scores alone.
    """

    def __init__(
        self,
        in_channels: int,
        ndf: int = 64,
        n_layers: int = 3,
        n_scales: int = 3,
        intermediate_features: bool = True,
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(in_channels, ndf, n_layers) for _ in range(n_scales))
        self.intermediate_features = intermediate_features
        init_weights(self)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Map [B, in_channels, H, W] to one list of features per scale, finest first; the last of each is the score."""
        levels = avg_pyramid(x, len(self.scales) - 1)
        outputs = [patch_gan(level) for patch_gan, level in zip(self.scales, levels, strict=True)]
        return outputs if self.intermediate_features else [features[-1:] for features in outputs]

    def copy_coarse_from(self, smaller: MultiscaleDiscriminator) -> None:
        """Start from a discriminator of a run at a lower resolution: every PatchGAN keeps the resolution that it knows,
        and the finest ones stay new.

        Raises:
            RuntimeError: the shapes differ.
        """
        for mine, theirs in zip(reversed(self.scales), reversed(smaller.scales), strict=False):
            mine.load_state_dict(theirs.state_dict())
