"""A training run of pix2pix as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hdgan.families.common.config import without_unused
from hdgan.families.common.train_config import StageConfig, TrainConfig
from hdgan.families.pix2pix.config import Pix2PixConfig
from hdgan.families.pix2pix.losses import Pix2PixLoss


@dataclass(frozen=True)
class Pix2PixStage(StageConfig):
    """One stage of training: at what resolution and for how long. All stages train the same networks."""

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions wrote the options of pix2pixHD's stages for every family."""
        return without_unused(plain, n_enhancers=(0,), n_scales=(2,), generator=("all",), encoder=(True, False))


@dataclass(frozen=True, kw_only=True)
class Pix2PixTrainConfig(TrainConfig):
    """A run of pix2pix, usually of one stage."""

    model: Pix2PixConfig = field(default_factory=Pix2PixConfig)
    stages: dict[str, Pix2PixStage] = field(default_factory=dict)
    """Stages in order."""
    loss: Pix2PixLoss = field(default_factory=Pix2PixLoss)
