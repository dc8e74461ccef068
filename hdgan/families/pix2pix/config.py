"""The architecture of pix2pix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Interval
from tyro.conf import Suppress

from hdgan.config.bounds import Blocks, Halvings, Width
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.config import ModelConfig, without_unused
from hdgan.models.options import MOST_DOWNS, NormKind


@dataclass(frozen=True)
class UNetConfig:
    """U-Net generator (Isola et al. 2017, section 3.2)."""

    ngf: Width = 64
    """Channels of the first convolution; they double with each level up to 8 ngf."""
    n_downs: Annotated[int, Interval(ge=2, le=12)] | None = None
    """Levels, each at half the resolution; None takes as many as the shortest side of the training images fills, up
    to 8. A checkpoint carries the number."""
    dropout_levels: tuple[Annotated[int, Interval(ge=0, le=11)], ...] = (0, 1, 2)
    """Decoder levels that drop half of their features as noise, in training and at test time, counted from the
    innermost, 0; an empty list means no noise. The outermost level has none."""
    spectral_norm: bool = False
    """Divide the weights of all convolutions by their largest singular values (Miyato et al. 2018)."""
    kind: Suppress[Literal["unet"]] = "unet"


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet generator of pix2pix and CycleGAN: two downsamplings, residual blocks, two upsamplings."""

    ngf: Width = 64
    """Channels of the first convolution."""
    n_blocks: Blocks = 9
    """Residual blocks."""
    dropout: bool = True
    """Drop half of the features inside each block as noise, in training and at test time."""
    spectral_norm: bool = False
    """Divide the weights of all convolutions by their largest singular values (Miyato et al. 2018)."""
    kind: Suppress[Literal["resnet"]] = "resnet"


@dataclass(frozen=True)
class PatchConfig:
    """PatchGAN (Isola et al. 2017, section 3.2)."""

    ndf: Width = 64
    """Channels of the first convolution."""
    n_layers: Halvings = 3
    """Stride-2 convolutions; with 3 each score sees 70x70 pixels."""
    spectral_norm: bool = False
    """Divide the weights of all convolutions by their largest singular values (Miyato et al. 2018). Norms undo that for
    the convolutions before them, so it bounds the first and the last one."""

    @property
    def least_side(self) -> int:
        """Pixels that an image needs per side for D to give a score."""
        return 3 * 2**self.n_layers


@dataclass(frozen=True)
class Pix2PixConfig(ModelConfig):
    """pix2pix: U-Net, or a ResNet generator (preset pix2pix-resnet), and one PatchGAN, which sees the condition."""

    family: Suppress[Literal["pix2pix"]] = "pix2pix"
    norm: NormKind = "batch"
    """Norm of G and D: batch uses the statistics of the batch, at test time too; instance uses those of each image."""
    generator: UNetConfig | ResNetConfig = UNetConfig()
    discriminator: PatchConfig = PatchConfig()

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions wrote features for every family."""
        return without_unused(plain, feature_channels=(0,))

    def __post_init__(self) -> None:
        super().__post_init__()
        g = self.generator
        if isinstance(g, ResNetConfig) or g.n_downs is None or g.dropout_levels == UNetConfig.dropout_levels:
            return  # a shallow one has as many of the usual levels as it can
        last = g.n_downs - 2  # the outermost level makes the image and drops nothing
        if max(g.dropout_levels, default=0) > last:
            raise ConfigError(
                f"{option('model.generator.dropout_levels')} is {' '.join(map(str, g.dropout_levels))}: give levels "
                f"from 0 to {last}, since there are {g.n_downs}"
            )

    @property
    def variants(self) -> int | None:
        g = self.generator
        noise = g.dropout if isinstance(g, ResNetConfig) else bool(g.dropout_levels)
        return None if noise else 1

    @property
    def batchable(self) -> bool:
        return self.norm == "instance" and self.variants is not None  # dropout draws for the batch as a whole

    def resolved(self, sides: Sequence[int]) -> Pix2PixConfig:
        """The config with a depth. If none is given, the U-Net's innermost level is at least one pixel high and wide.

        Without sides the depth is the paper's.
        """
        if isinstance(self.generator, ResNetConfig) or self.generator.n_downs is not None:
            return self
        fitting = min(sides, default=2**MOST_DOWNS).bit_length() - 1
        n_downs = max(2, min(MOST_DOWNS, fitting))
        return replace(self, generator=replace(self.generator, n_downs=n_downs))
