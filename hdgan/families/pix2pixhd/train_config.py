"""A training run of pix2pixHD as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from hdgan.config.bounds import Doublings, Scales
from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import StageConfig, TrainConfig
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.models.generator import LocalEnhancer


@dataclass(frozen=True)
class Pix2PixHDStage(StageConfig):
    """One stage of coarse-to-fine training: which networks train, at what resolution, for how long."""

    n_enhancers: Doublings = 0
    """Local enhancers around G1: 0 trains G1 alone."""
    n_scales: Scales = 2
    """Discriminators; D keeps the resolutions it knows from the stage before."""
    generator: Literal["all", "enhancer"] = "all"
    """Train all of G, or only the finest enhancer and the last convolution with the rest of G fixed."""
    encoder: bool = True
    """Train E, if the model has one."""

    def check(self, place: str) -> None:
        if self.generator == "enhancer" and not self.n_enhancers:
            raise ConfigError(
                f"stage {place.removeprefix('stages.')} trains only the enhancer but has none: set "
                f"{option(f'{place}.n_enhancers')} 1"
            )

    def model(self, config: Pix2PixHDConfig) -> Pix2PixHDConfig:
        """The architecture with the stage's enhancers and scales; E keeps working at G1's resolution."""
        return replace(
            config,
            generator=replace(config.generator, n_enhancers=self.n_enhancers),
            discriminator=replace(config.discriminator, n_scales=self.n_scales),
            encoder=replace(config.encoder, reduction=self.n_enhancers),
        )

    def trained_modules(self, model: Pix2PixHD) -> Iterator[nn.Module]:
        if model.discriminator is not None:
            yield model.discriminator
        if self.encoder and model.encoder is not None:
            yield model.encoder
        if self.generator == "enhancer" and isinstance(model.generator, LocalEnhancer):
            yield from (model.generator.enhancers[-1], model.generator.head)
        else:
            yield model.generator

    def trained_names(self, config: Pix2PixHDConfig) -> list[str]:
        enhancers = {0: [], 1: ["enhancer"]}.get(self.n_enhancers, [f"{self.n_enhancers} enhancers"])
        generator = ["finest enhancer"] if self.generator == "enhancer" else ["G1", *enhancers]
        encoder = ["E"] if config.feature_channels and self.encoder else []
        return [*generator, *encoder, f"{self.n_scales} D"]


@dataclass(frozen=True, kw_only=True)
class Pix2PixHDTrainConfig(TrainConfig):
    """A run of pix2pixHD: global generator, enhancer with the global part fixed, then all jointly."""

    model: Pix2PixHDConfig = field(default_factory=Pix2PixHDConfig)
    stages: dict[str, Pix2PixHDStage] = field(default_factory=dict)
    """Stages in order."""
    loss: Pix2PixHDLoss = field(default_factory=Pix2PixHDLoss)
