"""All model families in one list."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Union

from hdgan.families.common.config import ModelConfig
from hdgan.families.common.family import Family, Preset
from hdgan.families.common.model import ImageModel

NAMES = ("pix2pixhd", "crn", "pix2pix")
"""The folders of the families, in the order in which commands list their presets."""
FAMILIES: tuple[Family, ...] = tuple(import_module(f"hdgan.families.{name}").FAMILY for name in NAMES)
PRESETS: dict[str, Preset] = {name: preset for family in FAMILIES for name, preset in family.presets.items()}
"""Functions that return ready-made configs. Every field can still be changed on the command line."""
AnyModelConfig: Any = Union[tuple(family.config for family in FAMILIES)]  # noqa: UP007
"""A union of the configs of all models; files choose by `family`."""
AnyTrainConfig: Any = Union[tuple(family.train_config for family in FAMILIES)]  # noqa: UP007
"""A union of the configs of all runs; files choose by the `family` of the model."""


def family_of(config: ModelConfig) -> Family:
    """The family whose architecture a config describes."""
    return next(family for family in FAMILIES if family.config is type(config))


def build_model(config: ModelConfig) -> ImageModel:
    """A model with new weights.

    Args:
        config: the architecture; its type is that of the family.
    """
    return family_of(config).model(config)
