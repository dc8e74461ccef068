"""pix2pixHD as one module: the condition, the encoder, the generator and the discriminators of one stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hdgan.models.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, ModelConfig
from hdgan.models.discriminator import MultiscaleDiscriminator
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.generator import GlobalGenerator, LocalEnhancer
from hdgan.ops import InstanceIndex, boundary_map, encode_labels, memory_format_of

Generator = GlobalGenerator | LocalEnhancer


def build_generator(config: GeneratorConfig, in_channels: int, out_channels: int) -> Generator:
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
    )


def build_discriminator(config: DiscriminatorConfig, in_channels: int) -> MultiscaleDiscriminator:
    return MultiscaleDiscriminator(
        in_channels, config.ndf, config.n_layers, config.n_scales, config.intermediate_features
    )


def build_encoder(config: EncoderConfig, in_channels: int, out_channels: int) -> FeatureEncoder:
    return FeatureEncoder(
        in_channels,
        out_channels,
        config.nef,
        config.n_downsample,
        config.reduction,
        config.pad_mode,
        config.upsample,
    )


class Pix2PixHD(nn.Module):
    """The networks of one stage of training, and how they see their inputs.

    Args:
        config: the architecture.
        with_discriminator: False leaves D out, which inference does not need.

    Attributes:
        generator: takes the condition, then the features.
        discriminator: takes the condition, then the image; None where left out.
        encoder: None without features.
    """

    def __init__(self, config: ModelConfig, *, with_discriminator: bool = True) -> None:
        super().__init__()
        self.config = config
        self.generator = build_generator(config.generator, config.generator_channels, config.image_channels)
        self.discriminator = (
            build_discriminator(config.discriminator, config.discriminator_channels) if with_discriminator else None
        )
        self.encoder = (
            build_encoder(config.encoder, config.image_channels, config.feature_channels)
            if config.feature_channels
            else None
        )

    def condition(
        self,
        label: Tensor | None = None,  # [B, H, W] integer
        ids: Tensor | None = None,  # [B, H, W] integer
        picture: Tensor | None = None,  # [B, input_channels, H, W] in [-1, 1]
    ) -> Tensor:
        """Encode what G and D are conditioned on: [B, condition_channels, H, W].

        Label maps become one plane per class, input pictures (A->B) stay as they are; the instances' boundaries follow.
        """
        ids = ids if self.config.instances else None
        if label is not None:
            weight = self.generator.head.weight
            return encode_labels(
                label,
                ids,
                self.config.n_labels,
                dontcare=self.config.dontcare,
                # Zeros and ones are exact in bfloat16, and the convolutions would cast them anyway.
                dtype=_compute_dtype(weight),
                memory_format=memory_format_of(weight),
            )
        assert picture is not None
        if ids is None:
            return picture
        return torch.cat([picture, boundary_map(ids).unsqueeze(1).to(picture.dtype)], dim=1)

    def encode(self, photo: Tensor, instances: Tensor | InstanceIndex) -> Tensor | None:
        """E(photo), averaged per instance: [B, feature_channels, H, W]; None for a model without features."""
        return None if self.encoder is None else self.encoder(photo, instances)

    def generate(self, condition: Tensor, features: Tensor | None = None) -> Tensor:
        """G(condition, features): an image [B, image_channels, H, W] in [-1, 1]."""
        inputs = condition if features is None else torch.cat([condition, features.to(condition.dtype)], dim=1)
        return self.generator(inputs)

    def context(self, condition: Tensor) -> list[Tensor]:
        """D's share of the work that depends on the condition alone, for several images to `discriminate`."""
        assert self.discriminator is not None
        _require_channels("condition", condition, self.config.discriminator_channels - self.config.image_channels)
        return self.discriminator.context(condition)

    def discriminate(self, context: Sequence[Tensor], image: Tensor) -> list[list[Tensor]]:
        """D(condition, image): per scale, finest first, the features of every layer and last the score."""
        assert self.discriminator is not None
        _require_channels("image", image, self.config.image_channels)
        return self.discriminator(image.to(context[0].dtype), context)

    def copy_from(self, smaller: Pix2PixHD) -> None:
        """Take over the weights of a model with as many or fewer enhancers and scales.

        Equal networks are copied whole. A grown generator takes all but the last convolution; grown discriminators keep
        the resolutions they know.

        Raises:
            RuntimeError: the shapes differ.
        """
        if self.config.generator.n_enhancers == smaller.config.generator.n_enhancers:
            self.generator.load_state_dict(smaller.generator.state_dict())
        else:
            assert isinstance(self.generator, LocalEnhancer)
            self.generator.copy_coarse_from(smaller.generator)
        if self.discriminator is not None and smaller.discriminator is not None:
            self.discriminator.copy_coarse_from(smaller.discriminator)
        if self.encoder is not None and smaller.encoder is not None:
            self.encoder.load_state_dict(smaller.encoder.state_dict())


def _require_channels(name: str, x: Tensor, channels: int) -> None:
    if x.shape[1] != channels:
        raise ValueError(f"Pix2PixHD: expected {name} of {channels} channels, got {x.shape[1]}")


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a convolution with this weight computes in."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def grown(config: ModelConfig, n_enhancers: int, n_scales: int) -> ModelConfig:
    """The architecture of a later stage: more enhancers and scales; E keeps working at G1's resolution."""
    return replace(
        config,
        generator=replace(config.generator, n_enhancers=n_enhancers),
        discriminator=replace(config.discriminator, n_scales=n_scales),
        encoder=replace(config.encoder, reduction=n_enhancers),
    )
