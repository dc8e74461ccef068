"""Multi-scale discriminators (paper section 3.2): the same PatchGAN on an image pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdgan.models.blocks import as_function, init_weights, is_plain, recomputed
from hdgan.models.inputs import LabelInput, NetworkInput, input_for, input_pyramid, labels_conv
from hdgan.models.norms import NEGATIVE_SLOPE, make_norm
from hdgan.models.options import NormKind
from hdgan.ops import avg_pyramid

KERNEL = 4
WIDEST = 512
"""Maximum number of channels in pix2pixHD; in pix2pix it is 8 ndf."""


def _norm_leaky_conv(norm: nn.Module, conv: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's features, and what the next convolution makes of them."""
    feature = norm(x, "leaky_relu")
    return feature, conv(feature)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): 4x4 convolutions, `n_layers` of them with stride 2, then two with stride 1.

    Args:
        in_channels: of the condition and the image.
        ndf: channels of the first convolution; they double with each further one up to `widest`.
        n_layers: stride-2 convolutions; with 3 each score sees 70x70 pixels.
        norm: of all layers but the first and the last.
        padding: of each convolution: 1 in pix2pix, 2 in pix2pixHD.
        widest: channels that no convolution exceeds: 8 ndf in pix2pix, 512 in pix2pixHD.
    """

    def __init__(
        self,
        in_channels: int,
        ndf: int = 64,
        n_layers: int = 3,
        norm: NormKind = "instance",
        padding: int = 2,
        widest: int = WIDEST,
    ) -> None:
        super().__init__()
        widths = [in_channels, *(min(ndf * 2**i, widest) for i in range(n_layers + 1)), 1]
        strides = [2] * n_layers + [1, 1]
        # Biases in front of batch norms are left out, as in pix2pix; those in front of instance norms are dead.
        biases = [True, *[norm == "instance"] * n_layers, True]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], KERNEL, stride, padding, bias=bias)
            for i, (stride, bias) in enumerate(zip(strides, biases, strict=True))
        )
        self.norms = nn.ModuleList(make_norm(norm, width) for width in widths[2:-1])

    def context(self, condition: NetworkInput) -> Tensor:
        """What the first convolution makes of the condition, the leading channels of its input: without bias,
        [B, ndf, h, w].

        A first convolution that is not plain has to be called for condition and image at once; so the condition itself.
        """
        first = self.convs[0]
        condition = input_for(condition, [first])
        if isinstance(condition, LabelInput):
            return labels_conv(first, condition)
        if not is_plain(first):
            return condition
        return as_function(first, channels=slice(condition.shape[1]))(condition)

    def _first(self, x: Tensor, context: Tensor | None) -> Tensor:
        """What the first convolution makes of its whole input."""
        first = self.convs[0]
        if context is None:
            return first(x)
        if not is_plain(first):
            return first(torch.cat([context, x], dim=1))
        return as_function(first, bias=True, channels=slice(-x.shape[1], None))(x).add_(context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Map [B, in_channels, H, W] to the features of each layer; the last is the score of each patch.

        With the `context` of a condition, x is the image alone: [B, in_channels - condition's, H, W].
        """
        first, second, *further = self.convs
        last = self.convs[-1]
        # Hooks may keep what a convolution returns: it is theirs then, and not changed in place.
        features = [F.leaky_relu(self._first(x, context), NEGATIVE_SLOPE, inplace=is_plain(first))]
        h = as_function(second, bias=second is last)(features[0])
        for norm, conv in zip(self.norms, further, strict=True):
            layer = partial(_norm_leaky_conv, norm, as_function(conv, bias=conv is last))
            feature, h = recomputed(layer, h, through=(norm, conv))
            features.append(feature)
        return [*features, h]


class MultiscaleDiscriminator(nn.Module):
    """`n_scales` PatchGANs; scales[0] sees the full resolution, each of the others half of the one before.

    Args:
        in_channels: of the condition and the image.
        ndf: channels of the first convolution.
        n_layers: stride-2 convolutions of each PatchGAN.
        n_scales: number of PatchGANs (num_D in NVIDIA's code, which counts them from the coarsest).
        intermediate_features: return all features, for feature matching, or the scores alone.
        norm, padding, widest: of each PatchGAN.
    """

    def __init__(
        self,
        in_channels: int,
        ndf: int = 64,
        n_layers: int = 3,
        n_scales: int = 3,
        intermediate_features: bool = True,
        norm: NormKind = "instance",
        padding: int = 2,
        widest: int = WIDEST,
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, ndf, n_layers, norm, padding, widest) for _ in range(n_scales)
        )
        self.in_channels = in_channels
        self.norm, self.padding = norm, padding
        self.intermediate_features = intermediate_features
        init_weights(self)

    def context(self, condition: NetworkInput) -> list[Tensor]:
        """What D makes of a condition [B, condition_channels, H, W] before it meets an image, for several `forward`."""
        condition = input_for(condition, (scale.convs[0] for scale in self.scales))  # type: ignore[index,misc]
        levels = input_pyramid(condition, len(self.scales) - 1)
        return [scale.context(level) for scale, level in zip(self.scales, levels, strict=True)]  # type: ignore[operator]

    def forward(self, x: Tensor, context: Sequence[Tensor] | None = None) -> list[list[Tensor]]:
        """Map [B, in_channels, H, W] to one list of features per scale, finest first; the last of each is the score.

        With the `context` of a condition, x is the image alone.

        Raises:
            ValueError: x has other channels than the first convolution reads.
        """
        if context is None and x.shape[1] != self.in_channels:
            raise ValueError(f"MultiscaleDiscriminator: expected {self.in_channels} channels, got {x.shape[1]}")
        levels = avg_pyramid(x, len(self.scales) - 1)
        contexts = [None] * len(levels) if context is None else context
        outputs = [scale(level, known) for scale, level, known in zip(self.scales, levels, contexts, strict=True)]
        return outputs if self.intermediate_features else [features[-1:] for features in outputs]

    def copy_coarse_from(self, smaller: MultiscaleDiscriminator) -> None:
        """Start from a discriminator of a run at a lower resolution: every PatchGAN keeps its resolution, and the
        finest ones stay new.

        Raises:
            RuntimeError: the shapes differ.
        """
        for mine, theirs in zip(reversed(self.scales), reversed(smaller.scales), strict=False):
            mine.load_state_dict(theirs.state_dict())
