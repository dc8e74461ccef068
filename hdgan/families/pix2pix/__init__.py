"""pix2pix (Isola et al. 2017, arXiv 1611.07004)."""

from hdgan.families.common.family import Family
from hdgan.families.pix2pix.config import Pix2PixConfig
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.families.pix2pix.presets import PRESETS, Pix2PixTrainConfig

FAMILY = Family("pix2pix", Pix2PixConfig, Pix2Pix, Pix2PixTrainConfig, PRESETS)
