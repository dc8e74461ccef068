"""The model families: which network class each architecture is built by."""

from __future__ import annotations

from hdgan.models.base import ImageModel
from hdgan.models.config import ModelConfig, Pix2PixConfig, Pix2PixHDConfig
from hdgan.models.pix2pix import Pix2Pix
from hdgan.models.pix2pixhd import Pix2PixHD

AnyModelConfig = Pix2PixHDConfig | Pix2PixConfig
"""A union of all of them; files and the command line choose by `family`."""
MODELS: dict[type[ModelConfig], type[ImageModel]] = {Pix2PixHDConfig: Pix2PixHD, Pix2PixConfig: Pix2Pix}


def build_model(config: ModelConfig, *, with_discriminator: bool = True) -> ImageModel:
    """A model with new weights.

    Args:
        config: the architecture; its type is that of the family.
        with_discriminator: False leaves D out, which inference does not need.
    """
    return MODELS[type(config)](config, with_discriminator=with_discriminator)
