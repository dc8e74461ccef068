"""The networks of pix2pixHD."""

from hdgan.models.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, ModelConfig
from hdgan.models.discriminator import MultiscaleDiscriminator, PatchDiscriminator
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.generator import GlobalGenerator, LocalEnhancer
from hdgan.models.pix2pixhd import Pix2PixHD
from hdgan.models.unet import UNetGenerator
from hdgan.models.vgg import VGG19Features, load_vgg19

__all__ = [
    "DiscriminatorConfig",
    "EncoderConfig",
    "FeatureEncoder",
    "GeneratorConfig",
    "GlobalGenerator",
    "LocalEnhancer",
    "ModelConfig",
    "MultiscaleDiscriminator",
    "PatchDiscriminator",
    "Pix2PixHD",
    "UNetGenerator",
    "VGG19Features",
    "load_vgg19",
]
