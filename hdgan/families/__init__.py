"""The model families pix2pixHD, pix2pix and CRN: config, networks as one model, losses and runs of each."""

from hdgan.families.common.adversarial import AdversarialModel
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.model import ImageModel
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.losses import CRNLoss
from hdgan.families.crn.model import CRN
from hdgan.families.crn.presets import CRNStage, CRNTrainConfig
from hdgan.families.pix2pix.config import PatchConfig, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.pix2pix.losses import Pix2PixLoss
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.families.pix2pix.presets import Pix2PixStage, Pix2PixTrainConfig
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.families.pix2pixhd.presets import Pix2PixHDStage, Pix2PixHDTrainConfig
from hdgan.families.registry import FAMILIES, PRESETS, build_model

__all__ = [
    "CRN",
    "FAMILIES",
    "PRESETS",
    "AdversarialModel",
    "CRNConfig",
    "CRNLoss",
    "CRNStage",
    "CRNTrainConfig",
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
    "Pix2PixHDStage",
    "Pix2PixHDTrainConfig",
    "Pix2PixLoss",
    "Pix2PixStage",
    "Pix2PixTrainConfig",
    "ResNetConfig",
    "UNetConfig",
    "build_model",
]
