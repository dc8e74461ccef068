"""What the registry knows of a model family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hdgan.families.common.config import ModelConfig
from hdgan.families.common.model import ImageModel
from hdgan.families.common.train_config import TrainConfig

Preset = Callable[[], TrainConfig]


@dataclass(frozen=True)
class Family:
    """A model family."""

    title: str
    """How its paper writes its name."""
    config: type[ModelConfig]
    """The architecture of its models."""
    model: type[ImageModel]
    """Built from such a config."""
    train_config: Callable[..., TrainConfig]
    """The config class of its runs, in which everything has a default."""
    presets: Mapping[str, Preset]
    """Ready-made runs, by their name in `hdgan train`."""
