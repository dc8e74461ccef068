"""The architecture of a model as plain data: what a checkpoint carries and a network is built from.

Suppressed fields are no options of the command line: the stages of a run, or its data options, set them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tyro.conf import Suppress

from hdgan.errors import ConfigError
from hdgan.ops.instance_norm_act import PadMode

UpsampleMode = Literal["transposed", "resize"]
NormKind = Literal["batch", "instance"]

MOST_DOWNS = 8
"""Levels of the U-Net of Isola et al. 2017, whose innermost is one pixel for a picture of 256x256."""


def require(wanted: str, options: Mapping[str, float | None], fits: Callable[[float], bool]) -> None:
    """Check numbers by the name of their option; None is no value and fits.

    Raises:
        ConfigError: the first that does not fit, with what is wanted.
    """
    for option, value in options.items():
        if value is not None and not fits(value):
            raise ConfigError(f"--{option} is {value}: give {wanted}")


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
class ModelConfig:
    """What all families have: the input and the image. Each family is a subclass, told apart by `family`."""

    family: Suppress[str]
    n_labels: int = 35
    """Classes of the label maps; 0 for A->B training, whose input is a picture."""
    input_channels: int = 3
    """Channels of the input picture of A->B training (n_labels 0)."""
    image_channels: int = 3
    """Channels of the photo."""
    instances: bool = True
    """Feed the instance boundary map."""
    feature_channels: Suppress[int] = 0
    """Channels of E's features."""
    dontcare: Suppress[int | None] = None
    """Label whose pixels belong to no class."""
    instance_divisor: Suppress[int] = 1000
    """Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself."""

    def __post_init__(self) -> None:
        positive = {"image-channels": self.image_channels, "instance-divisor": self.instance_divisor}
        if self.n_labels == 0:
            positive["input-channels"] = self.input_channels
        self.require_positive(positive)
        self.require_not_negative({"n-labels": self.n_labels})

    @staticmethod
    def require_positive(options: Mapping[str, float]) -> None:
        """Check options of the model by their names.

        Raises:
            ConfigError: one is 0 or less.
        """
        require("a positive number", {f"model.{k}": v for k, v in options.items()}, lambda value: value > 0)

    @staticmethod
    def require_not_negative(options: Mapping[str, float]) -> None:
        """The same for options that may be 0."""
        require("0 or more", {f"model.{k}": v for k, v in options.items()}, lambda value: value >= 0)

    @property
    def condition_channels(self) -> int:
        """Channels of the condition that G and D see: classes (or input picture) and boundary map."""
        return (self.n_labels or self.input_channels) + int(self.instances)

    @property
    def generator_channels(self) -> int:
        """Input channels of G: the condition and E's features."""
        return self.condition_channels + self.feature_channels

    @property
    def discriminator_channels(self) -> int:
        """Input channels of D: the condition and the image, never features."""
        return self.condition_channels + self.image_channels

    def trained(self, *, enhancer_only: bool, encoder: bool) -> list[str]:
        """The networks that a stage trains, as people name them; arguments as of `ImageModel.trained_modules`."""
        return ["G", "D"]

    @property
    def variants(self) -> int | None:
        """Pictures that a model makes of the same input by itself; None for as many as there are seeds of its noise."""
        return 1

    def sized(self, sides: Sequence[int]) -> ModelConfig:
        """With what follows from the training pictures' sides in pixels, as far as they are known, filled in."""
        return self

    @property
    def growth(self) -> dict[str, int]:
        """How many of the parts there are that a run may add from stage to stage, by their name."""
        return {}

    def grown(self, n_enhancers: int, n_scales: int) -> ModelConfig:
        """The architecture of a stage with these parts.

        Raises:
            ConfigError: the family cannot have them.
        """
        if n_enhancers:
            raise ConfigError(
                f"a stage has {n_enhancers} enhancers, but the models of the family {self.family} have none"
            )
        return self


@dataclass(frozen=True)
class Pix2PixHDConfig(ModelConfig):
    """pix2pixHD: generator, discriminators and, with feature channels, encoder."""

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


_CRN_WIDTHS = (1024, 1024, 1024, 1024, 1024, 512, 512, 128, 32)
"""Channels of CRN's modules for 4 rows, 8, …, 1024 rows."""


@dataclass(frozen=True)
class CRNConfig(ModelConfig):
    """CRN (arXiv 1707.09405): refinement modules from coarse to fine, no discriminator."""

    family: Suppress[Literal["crn"]] = "crn"
    instances: bool = False
    """Feed the instance boundary map; off in the original."""
    n_modules: int = 7
    """Refinement modules of the first stage, each at twice the resolution of the one before. In the original the
    coarsest has 4 rows: 7 modules for 512x256, 5 for 128x64."""
    n_enhancers: Suppress[int] = 0
    """Further modules, each of which doubles the resolution: what later stages add."""
    width: float = 1.0
    """Factor on the channels of all modules."""
    n_images: int = 1
    """Images of each condition: every class learns from the best of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive({"n-modules": self.n_modules, "width": self.width, "n-images": self.n_images})
        self.require_not_negative({"n-enhancers": self.n_enhancers})

    @property
    def variants(self) -> int:
        return self.n_images

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each module, coarsest first."""
        count = self.n_modules + self.n_enhancers
        channels = (*_CRN_WIDTHS, *[_CRN_WIDTHS[-1]] * count)[:count]
        return tuple(max(1, round(self.width * full)) for full in channels)

    def trained(self, *, enhancer_only: bool, encoder: bool) -> list[str]:
        return ["finest module" if enhancer_only else f"{len(self.widths)} modules"]

    @property
    def growth(self) -> dict[str, int]:
        return {"modules": len(self.widths)}

    def grown(self, n_enhancers: int, n_scales: int) -> CRNConfig:
        """The architecture of a stage: a module more for each enhancer."""
        return replace(self, n_enhancers=n_enhancers)


@dataclass(frozen=True)
class UNetConfig:
    """U-Net generator (Isola et al. 2017, section 3.2)."""

    ngf: int = 64
    """Channels of the first convolution; they double with each level up to 8 ngf."""
    n_downs: int | None = None
    """Levels, each at half the resolution; None takes as many as the shortest side of the training pictures fills, up
    to 8, and 8 where the pictures keep the size of their files. A checkpoint carries the number."""
    dropout_levels: tuple[int, ...] = (0, 1, 2)
    """Decoder levels that drop half of their features as noise, in training and at test time, counted from the
    innermost, 0; with no number there is no noise."""


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet generator of pix2pix and CycleGAN: two downsamplings, residual blocks, two upsamplings."""

    ngf: int = 64
    """Channels of the first convolution."""
    n_blocks: int = 9
    """Residual blocks."""
    dropout: bool = True
    """Drop half of the features inside each block as noise, in training and at test time."""


@dataclass(frozen=True)
class PatchConfig:
    """PatchGAN (Isola et al. 2017, section 3.2)."""

    ndf: int = 64
    """Channels of the first convolution."""
    n_layers: int = 3
    """Stride-2 convolutions; with 3 each score sees 70x70 pixels."""

    @property
    def least_side(self) -> int:
        """Pixels that a picture needs on each side for D to have a score."""
        return 3 * 2**self.n_layers


@dataclass(frozen=True)
class Pix2PixConfig(ModelConfig):
    """pix2pix: U-Net, or a ResNet generator, and one PatchGAN, which sees the condition."""

    family: Suppress[Literal["pix2pix"]] = "pix2pix"
    norm: NormKind = "batch"
    """Of G and D: batch takes the statistics of the batch at test time too, instance those of each picture."""
    generator: UNetConfig | ResNetConfig = UNetConfig()
    discriminator: PatchConfig = PatchConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        g, d = self.generator, self.discriminator
        positive = {"generator.ngf": g.ngf, "discriminator.ndf": d.ndf, "discriminator.n-layers": d.n_layers}
        self.require_positive(positive)
        if isinstance(g, ResNetConfig):
            self.require_not_negative({"generator.n-blocks": g.n_blocks})
            return
        require("2 or more", {"model.generator.n-downs": g.n_downs}, lambda value: value >= 2)
        for level in g.dropout_levels:
            self.require_not_negative({"generator.dropout-levels": level})

    @property
    def variants(self) -> int | None:
        g = self.generator
        noise = g.dropout if isinstance(g, ResNetConfig) else bool(g.dropout_levels)
        return None if noise else 1

    def sized(self, sides: Sequence[int]) -> Pix2PixConfig:
        """With a depth, if it is not given: the U-Net's innermost level is one pixel high or wide, or more."""
        if isinstance(self.generator, ResNetConfig) or self.generator.n_downs is not None:
            return self
        fitting = min(sides, default=2**MOST_DOWNS).bit_length() - 1
        n_downs = max(2, min(MOST_DOWNS, fitting))
        return replace(self, generator=replace(self.generator, n_downs=n_downs))
