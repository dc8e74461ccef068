"""CRN (Chen and Koltun 2017, arXiv 1707.09405)."""

from hdgan.families.common.family import Family
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.model import CRN
from hdgan.families.crn.presets import PRESETS, CRNTrainConfig

FAMILY = Family("CRN", CRNConfig, CRN, CRNTrainConfig, PRESETS)
