"""All model families in one list."""

from __future__ import annotations

from typing import Any, Union

from hdgan.families import crn, pix2pix, pix2pixhd
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.family import Family, Preset
from hdgan.families.common.model import ImageModel

FAMILIES: tuple[Family, ...] = (
    pix2pixhd.FAMILY,
    crn.FAMILY,
    pix2pix.FAMILY,
)
PRESETS: dict[str, Preset] = {name: preset for family in FAMILIES for name, preset in family.presets.items()}
"""Functions that return ready-made configs. Every field can still be changed on the command line."""
AnyModelConfig: Any = Union[tuple(family.config for family in FAMILIES)]  # noqa: UP007
"""A union of the configs of all models; files choose by `family`."""
AnyTrainConfig: Any = Union[tuple(family.train_config for family in FAMILIES)]  # noqa: UP007
"""A union of the configs of all runs; files choose by the `family` of the model."""


def family_of(config: ModelConfig) -> Family:
    """The family whose architecture a config describes."""
    return next(family for family in FAMILIES if family.config is type(config))


def build_model(config: ModelConfig, *, with_discriminator: bool = True) -> ImageModel:
    """A model with new weights.

    Args:
        config: the architecture; its type is that of the family.
        with_discriminator: False leaves D out, which inference does not need.
    """
    return family_of(config).model(config, with_discriminator=with_discriminator)
