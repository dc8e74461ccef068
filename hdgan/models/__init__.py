"""The networks."""

from hdgan.models.adversarial import AdversarialModel
from hdgan.models.base import ImageModel
from hdgan.models.config import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    ModelConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    ResNetConfig,
    UNetConfig,
)
from hdgan.models.discriminator import MultiscaleDiscriminator, PatchDiscriminator
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.families import AnyModelConfig, build_model
from hdgan.models.generator import GlobalGenerator, LocalEnhancer
from hdgan.models.pix2pix import Pix2Pix
from hdgan.models.pix2pixhd import Pix2PixHD
from hdgan.models.resnet import ResNetGenerator
from hdgan.models.unet import UNetGenerator
from hdgan.models.vgg import VGG19Features, load_vgg19

__all__ = [
    "AdversarialModel",
    "AnyModelConfig",
    "DiscriminatorConfig",
    "EncoderConfig",
    "FeatureEncoder",
    "GeneratorConfig",
    "GlobalGenerator",
    "ImageModel",
    "LocalEnhancer",
    "ModelConfig",
    "MultiscaleDiscriminator",
    "PatchConfig",
    "PatchDiscriminator",
    "Pix2Pix",
    "Pix2PixConfig",
    "Pix2PixHD",
    "Pix2PixHDConfig",
    "ResNetConfig",
    "ResNetGenerator",
    "UNetConfig",
    "UNetGenerator",
    "VGG19Features",
    "build_model",
    "load_vgg19",
]
