"""The architecture of pix2pixHD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Suppress

from hdgan.config.bounds import Blocks, Doublings, Features, Halvings, Noise, Scales, Width
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.config import ModelConfig
from hdgan.models.options import UpsampleMode
from hdgan.ops.instance_norm_act import PadMode
from hdgan.wording import count


@dataclass(frozen=True)
class GeneratorConfig:
    """Coarse-to-fine generator (paper section 3.2): G1 alone, or G1 inside local enhancers."""

    ngf: Width = 64
    """Channels of G1's first convolution; each enhancer halves it for its own finer level."""
    n_downsample: Halvings = 4
    """Stride-2 convolutions of G1."""
    n_blocks: Blocks = 9
    """Residual blocks of G1."""
    n_enhancers: Suppress[Doublings] = 0
    """Local enhancers around G1; each doubles the resolution."""
    n_blocks_local: Blocks = 3
    """Residual blocks of each enhancer."""
    pad_mode: PadMode = "reflect"
    """Padding of the 7x7 convolutions and of the residual blocks."""
    upsample: UpsampleMode = "transposed"
    """transposed convolution as in the original, or nearest-neighbour resize + convolution (no checkerboard)."""
    spectral_norm: bool = False
    """Divide the weights of all convolutions by their largest singular values (Miyato et al. 2018)."""
    noise: Noise = 0.0
    """Add noise at the coarsest level and after each upsampling, from which texture is made: initial standard deviation
    relative to the features', such as 0.3. Each channel learns its own. 0, as in the original, adds none."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Multi-scale PatchGAN (paper section 3.2)."""

    ndf: Width = 64
    """Channels of the first convolution."""
    n_layers: Halvings = 3
    """Stride-2 convolutions of each PatchGAN."""
    n_scales: Suppress[Scales] = 2
    """Discriminators, each at half the resolution of the one before (num_D in NVIDIA's code)."""
    intermediate_features: bool = True
    """Return the features of every layer, which feature matching needs."""
    spectral_norm: bool = False
    """Divide the weights of all convolutions by their largest singular values (Miyato et al. 2018). Norms undo that for
    the convolutions before them, so it bounds the first and the last one of each PatchGAN."""


@dataclass(frozen=True)
class EncoderConfig:
    """Feature encoder E (paper section 3.4)."""

    nef: Width = 16
    """Channels of the first convolution."""
    n_downsample: Halvings = 4
    """Stride-2 convolutions."""
    reduction: Suppress[Doublings] = 0
    """E sees the photo halved this many times, and its features are upsampled by nearest neighbour before they are
    averaged per instance, so that an E trained with G1 stays valid under local enhancers."""
    pad_mode: PadMode = "reflect"
    """Padding of the 7x7 convolutions."""
    upsample: UpsampleMode = "transposed"
    """As in the generator."""


@dataclass(frozen=True)
class Pix2PixHDConfig(ModelConfig):
    """pix2pixHD: generator, discriminators and, with feature channels, encoder."""

    family: Suppress[Literal["pix2pixhd"]] = "pix2pixhd"
    feature_channels: Features = 0
    """Channels of E's features, 3 in the paper; 0 trains without E."""
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    encoder: EncoderConfig = EncoderConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        g = self.generator
        if g.ngf % 2**g.n_enhancers:
            raise ConfigError(
                f"{option('model.generator.ngf')} is {g.ngf}: with {count(g.n_enhancers, 'enhancer')} it must be a "
                f"multiple of {2**g.n_enhancers}"
            )
        if self.feature_channels and not (self.instances or self.n_labels):
            raise ConfigError(
                f"{option('model.feature_channels')} is {self.feature_channels}, but features are averaged over "
                "instance maps or labels, and there are none: set it to 0"
            )

    @property
    def variants(self) -> int | None:
        return None if self.generator.noise else 1

    @property
    def growth(self) -> dict[str, int]:
        return {"enhancer": self.generator.n_enhancers, "scale": self.discriminator.n_scales}
