"""pix2pix as one module (Isola et al. 2017): U-Net or ResNet generator, and one PatchGAN on condition and image."""

from __future__ import annotations

from torch import Tensor

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.adversarial import AdversarialModel
from hdgan.families.pix2pix.config import Pix2PixConfig, ResNetConfig
from hdgan.models.blocks import zero_biases
from hdgan.models.discriminator import MultiscaleDiscriminator
from hdgan.models.inputs import NetworkInput
from hdgan.models.options import NormKind
from hdgan.models.resnet import ResNetGenerator
from hdgan.models.spectral_norm import normalised
from hdgan.models.unet import UNetGenerator


def build_generator(config: Pix2PixConfig) -> UNetGenerator | ResNetGenerator:
    """The generator of a config whose depth is known."""
    g, channels = config.generator, (config.generator_channels, config.image_channels)
    if isinstance(g, ResNetConfig):
        return ResNetGenerator(*channels, g.ngf, g.n_blocks, config.norm, g.dropout)
    assert g.n_downs is not None
    return UNetGenerator(*channels, g.ngf, g.n_downs, config.norm, g.dropout_levels)


def patch_gan(in_channels: int, ndf: int, n_layers: int, norm: NormKind) -> MultiscaleDiscriminator:
    """pix2pix's discriminator: one scale, padding 1, 8 ndf channels at most."""
    return MultiscaleDiscriminator(in_channels, ndf, n_layers, 1, False, norm, padding=1, widest=8 * ndf)


class Pix2Pix(AdversarialModel):
    """The networks of pix2pix.

    Args:
        config: the architecture. If it does not set the depth, the depth is the paper's.

    Attributes:
        config: with its depth.
    """

    config: Pix2PixConfig
    generator: UNetGenerator | ResNetGenerator
    encoder: None

    def __init__(self, config: Pix2PixConfig) -> None:
        config = config.resolved(())
        super().__init__(config)
        self.generator = normalised(build_generator(config), config.generator.spectral_norm)
        d = config.discriminator
        discriminator = patch_gan(config.discriminator_channels, d.ndf, d.n_layers, config.norm)
        self.discriminator = normalised(discriminator, d.spectral_norm)
        self.encoder = None
        zero_biases(self)

    def context(self, condition: NetworkInput) -> list[Tensor]:
        """D's share of the work that depends on the condition alone, for several images to `discriminate`.

        Raises:
            ConfigError: the images are too small for D.
        """
        (height, width), least = condition.shape[2:], self.config.discriminator.least_side
        if min(height, width) < least:
            raise ConfigError(
                f"images of {width}x{height} are too small for D, which needs {least} pixels per side: train at a "
                f"larger size, or with fewer {option('model.discriminator.n_layers')}"
            )
        return super().context(condition)
