"""The model families pix2pixHD, pix2pix and CRN: config, networks as one model, and losses of each."""

from hdgan.families.common.adversarial_model import AdversarialModel
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.model import ImageModel
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.losses import CRNLoss
from hdgan.families.crn.model import CRN
from hdgan.families.pix2pix.config import PatchConfig, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.pix2pix.losses import Pix2PixLoss
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.families.registry import FAMILIES, AnyLoss, AnyModelConfig, build_model

__all__ = [
    "CRN",
    "FAMILIES",
    "AdversarialModel",
    "AnyLoss",
    "AnyModelConfig",
    "CRNConfig",
    "CRNLoss",
    "DiscriminatorConfig",
    "EncoderConfig",
    "GeneratorConfig",
    "ImageModel",
    "ModelConfig",
    "PatchConfig",
    "Pix2Pix",
    "Pix2PixConfig",
    "Pix2PixHD",
    "Pix2PixHDConfig",
    "Pix2PixHDLoss",
    "Pix2PixLoss",
    "ResNetConfig",
    "UNetConfig",
    "build_model",
]
