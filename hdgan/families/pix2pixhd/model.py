"""pix2pixHD as one module: the condition, the encoder, the generator and the discriminators of one stage."""

from __future__ import annotations

from hdgan.families.common.adversarial import AdversarialModel
from hdgan.families.common.model import ImageModel
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.models.discriminator import MultiscaleDiscriminator
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.generator import GlobalGenerator, LocalEnhancer
from hdgan.models.spectral_norm import normalised


def build_generator(config: GeneratorConfig, in_channels: int, out_channels: int) -> GlobalGenerator | LocalEnhancer:
    """G1 alone, or with enhancers G2."""
    if config.n_enhancers == 0:
        return GlobalGenerator(
            in_channels,
            out_channels,
            config.ngf,
            config.n_downsample,
            config.n_blocks,
            config.pad_mode,
            config.upsample,
            config.noise,
        )
    return LocalEnhancer(
        in_channels,
        out_channels,
        config.ngf // 2**config.n_enhancers,
        config.n_downsample,
        config.n_blocks,
        config.n_enhancers,
        config.n_blocks_local,
        config.pad_mode,
        config.upsample,
        config.noise,
    )


def build_discriminator(config: DiscriminatorConfig, in_channels: int) -> MultiscaleDiscriminator:
    """The discriminators of a config, for condition and image together in `in_channels`."""
    return MultiscaleDiscriminator(
        in_channels, config.ndf, config.n_layers, config.n_scales, config.intermediate_features
    )


def build_encoder(config: EncoderConfig, in_channels: int, out_channels: int) -> FeatureEncoder:
    """The encoder of a config, from images of `in_channels` to features of `out_channels`."""
    return FeatureEncoder(
        in_channels,
        out_channels,
        config.nef,
        config.n_downsample,
        config.reduction,
        config.pad_mode,
        config.upsample,
    )


class Pix2PixHD(AdversarialModel):
    """The networks of one stage of training, and how they see their inputs.

    Args:
        config: the architecture.

    Attributes:
        generator: takes the condition, then the features.
        discriminator: takes the condition, then the image; None in an averaged model, and where a file has none.
        encoder: None without features.
    """

    config: Pix2PixHDConfig
    generator: GlobalGenerator | LocalEnhancer
    encoder: FeatureEncoder | None

    def __init__(self, config: Pix2PixHDConfig) -> None:
        super().__init__(config)
        g, d = config.generator, config.discriminator
        generator = build_generator(g, config.generator_channels, config.image_channels)
        self.generator = normalised(generator, g.spectral_norm)
        self.discriminator = normalised(build_discriminator(d, config.discriminator_channels), d.spectral_norm)
        self.encoder = (
            build_encoder(config.encoder, config.image_channels, config.feature_channels)
            if config.feature_channels
            else None
        )

    def copy_from(self, smaller: ImageModel) -> None:
        """Take over the weights of a model with the same number of enhancers and scales, or fewer.

        Equal networks are copied whole. A grown generator takes all but the last convolution; grown discriminators keep
        the resolutions that they were trained at.

        Raises:
            RuntimeError: the shapes differ.
        """
        assert isinstance(smaller, Pix2PixHD)
        if self.config.generator.n_enhancers == smaller.config.generator.n_enhancers:
            self.generator.load_state_dict(smaller.generator.state_dict())
        else:
            assert isinstance(self.generator, LocalEnhancer)
            self.generator.copy_coarse_from(smaller.generator)
        if self.discriminator is not None and smaller.discriminator is not None:
            self.discriminator.copy_coarse_from(smaller.discriminator)
        if self.encoder is not None and smaller.encoder is not None:
            self.encoder.load_state_dict(smaller.encoder.state_dict())
