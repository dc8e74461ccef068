"""The architecture of a model as plain data: what a checkpoint carries and a network is built from.

Suppressed fields are no options of the command line: the stages of a run, or its data options, set them.
"""

from hdgan.models.config.base import ModelConfig, NormKind
from hdgan.models.config.crn import CRNConfig
from hdgan.models.config.pix2pix import MOST_DOWNS, PatchConfig, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.models.config.pix2pixhd import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    Pix2PixHDConfig,
    UpsampleMode,
)

__all__ = [
    "MOST_DOWNS",
    "CRNConfig",
    "DiscriminatorConfig",
    "EncoderConfig",
    "GeneratorConfig",
    "ModelConfig",
    "NormKind",
    "PatchConfig",
    "Pix2PixConfig",
    "Pix2PixHDConfig",
    "ResNetConfig",
    "UNetConfig",
    "UpsampleMode",
]
