"""The architecture of pix2pixHD."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tyro.conf import Suppress

from hdgan.errors import ConfigError
from hdgan.models.config.base import ModelConfig
from hdgan.ops.instance_norm_act import PadMode

UpsampleMode = Literal["transposed", "resize"]


@dataclass(frozen=True)
class GeneratorConfig:
    """Coarse-to-fine generator (paper section 3.2): G1 alone, or G1 inside local enhancers."""

    ngf: int = 64
    """Channels of G1's first convolution; each enhancer halves it for its own finer level."""
    n_downsample: int = 4
    """Stride-2 convolutions of G1."""
    n_blocks: int = 9
    """Residual blocks of G1."""
    n_enhancers: Suppress[int] = 0
    """Local enhancers around G1; each doubles the resolution."""
    n_blocks_local: int = 3
    """Residual blocks of each enhancer."""
    pad_mode: PadMode = "reflect"
    """Padding of the 7x7 convolutions and of the residual blocks."""
    upsample: UpsampleMode = "transposed"
    """transposed convolution as in the original, or nearest-neighbour resize + convolution (no checkerboard)."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Multi-scale PatchGAN (paper section 3.2)."""

    ndf: int = 64
    """Channels of the first convolution."""
    n_layers: int = 3
    """Stride-2 convolutions of each PatchGAN."""
    n_scales: Suppress[int] = 2
    """Discriminators, each at half the resolution of the one before (num_D in NVIDIA's code)."""
    intermediate_features: bool = True
    """Return the features of every layer, which feature matching needs."""


@dataclass(frozen=True)
class EncoderConfig:
    """Feature encoder E (paper section 3.4)."""

    nef: int = 16
    """Channels of the first convolution."""
    n_downsample: int = 4
    """Stride-2 convolutions."""
    reduction: Suppress[int] = 0
    """E sees the photo halved this many times, and its features are upsampled by nearest neighbour before they are
    averaged per instance: so an E trained with G1 goes on unchanged under local enhancers."""
    pad_mode: PadMode = "reflect"
    """Padding of the 7x7 convolutions."""
    upsample: UpsampleMode = "transposed"
    """As of the generator."""


@dataclass(frozen=True)
class Pix2PixHDConfig(ModelConfig):
    """pix2pixHD: generator, discriminators and, with feature channels, encoder."""

    has_encoder: ClassVar[bool] = True

    family: Suppress[Literal["pix2pixhd"]] = "pix2pixhd"
    feature_channels: int = 0
    """Channels of E's features, 3 in the paper; 0 trains without E."""
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    encoder: EncoderConfig = EncoderConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        g, d, e = self.generator, self.discriminator, self.encoder
        self.require_positive(
            {
                "generator.ngf": g.ngf,
                "generator.n-downsample": g.n_downsample,
                "discriminator.ndf": d.ndf,
                "discriminator.n-layers": d.n_layers,
                "discriminator.n-scales": d.n_scales,
                "encoder.nef": e.nef,
                "encoder.n-downsample": e.n_downsample,
            }
        )
        self.require_not_negative(
            {
                "feature-channels": self.feature_channels,
                "generator.n-blocks": g.n_blocks,
                "generator.n-enhancers": g.n_enhancers,
                "generator.n-blocks-local": g.n_blocks_local,
            }
        )
        if g.ngf % 2**g.n_enhancers:
            raise ConfigError(
                f"--model.generator.ngf is {g.ngf}: with {g.n_enhancers} enhancers it must be a multiple of "
                f"{2**g.n_enhancers}"
            )
        if self.feature_channels and not (self.instances or self.n_labels):
            raise ConfigError("feature_channels needs instance maps or labels to average over: set feature_channels 0")

    def trained(self, *, enhancer_only: bool, encoder: bool) -> list[str]:
        n = self.generator.n_enhancers
        enhancers = {0: [], 1: ["enhancer"]}.get(n, [f"{n} enhancers"])
        generator = ["finest enhancer"] if enhancer_only else ["G1", *enhancers]
        e = ["E"] if self.feature_channels and encoder else []
        return [*generator, *e, f"{self.discriminator.n_scales} D"]

    @property
    def growth(self) -> dict[str, int]:
        return {"enhancers": self.generator.n_enhancers, "scales": self.discriminator.n_scales}

    def grown(self, n_enhancers: int, n_scales: int) -> Pix2PixHDConfig:
        """The architecture of a stage: its enhancers and scales; E keeps working at G1's resolution."""
        return replace(
            self,
            generator=replace(self.generator, n_enhancers=n_enhancers),
            discriminator=replace(self.discriminator, n_scales=n_scales),
            encoder=replace(self.encoder, reduction=n_enhancers),
        )
