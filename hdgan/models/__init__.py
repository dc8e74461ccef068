"""The bare networks, which know nothing of families and runs."""

from hdgan.models.crn import CascadedRefinement
from hdgan.models.discriminator import MultiscaleDiscriminator, PatchDiscriminator
from hdgan.models.encoder import FeatureEncoder
from hdgan.models.generator import GlobalGenerator, LocalEnhancer
from hdgan.models.inputs import LabelInput
from hdgan.models.resnet import ResNetGenerator
from hdgan.models.unet import UNetGenerator
from hdgan.models.vgg import VGG19Features, load_vgg19

__all__ = [
    "CascadedRefinement",
    "FeatureEncoder",
    "GlobalGenerator",
    "LabelInput",
    "LocalEnhancer",
    "MultiscaleDiscriminator",
    "PatchDiscriminator",
    "ResNetGenerator",
    "UNetGenerator",
    "VGG19Features",
    "load_vgg19",
]
