"""pix2pixHD (Wang et al. 2018, arXiv 1711.11585)."""

from hdgan.families.common.family import Family
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.families.pix2pixhd.presets import PRESETS, Pix2PixHDTrainConfig

FAMILY = Family("pix2pixHD", Pix2PixHDConfig, Pix2PixHD, Pix2PixHDTrainConfig, PRESETS)
