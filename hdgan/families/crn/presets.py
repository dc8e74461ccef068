"""Training runs of CRN as plain data: their stages and config, and ready-made runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from hdgan.config.bounds import Doublings
from hdgan.config.options import option
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families.common.config import renamed, without_unused
from hdgan.families.common.train_config import OptimConfig, StageConfig, TrainConfig
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.losses import CRNLoss
from hdgan.families.crn.model import CRN


@dataclass(frozen=True)
class CRNStage(StageConfig):
    """One stage of training: its modules, which of them are trained, its resolution and its length."""

    extra_modules: Doublings = 0
    """Refinement modules in addition to the model's n_modules, each of which doubles the resolution."""
    train: Literal["all", "finest"] = "all"
    """Train all modules, or only the finest one and the last convolution with the others fixed."""

    @classmethod
    def upgraded(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions wrote the options of pix2pixHD's stages for every family."""
        plain = without_unused(plain, n_scales=(2,), encoder=(True, False))
        plain = renamed(plain, n_enhancers="extra_modules", generator="train")
        return plain | ({"train": "finest"} if plain.get("train") == "enhancer" else {})

    def check(self, place: str) -> None:
        if self.train == "finest" and not self.extra_modules:
            raise ConfigError(
                f"stage {place.removeprefix('stages.')} trains only the finest module but does not add one: set "
                f"{option(f'{place}.extra_modules')} 1"
            )

    def model(self, config: CRNConfig) -> CRNConfig:
        return replace(config, extra_modules=self.extra_modules)

    def trained_modules(self, model: CRN) -> Iterator[nn.Module]:
        cascade = model.generator
        yield from [cascade] if self.train == "all" else [cascade.levels[-1], cascade.head]

    def trained_names(self, config: CRNConfig) -> list[str]:
        return ["finest module" if self.train == "finest" else f"{len(config.widths)} modules"]


@dataclass(frozen=True, kw_only=True)
class CRNTrainConfig(TrainConfig):
    """A run of CRN, whose stages may add modules from coarse to fine."""

    model: CRNConfig = field(default_factory=CRNConfig)
    stages: dict[str, CRNStage] = field(default_factory=dict)
    """Stages in order."""
    loss: CRNLoss = field(default_factory=CRNLoss)


def crn() -> CRNTrainConfig:
    """CRN on Cityscapes, as its authors train it: 200 epochs at 512x256, and 20 at 1024x512 with one more module."""
    coarse = CRNStage(size=SizeConfig(width=512), epochs=200, decay=0.0, lr=1e-4)
    return CRNTrainConfig(
        out=Path("runs/crn"),
        model=CRNConfig(n_modules=7),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"coarse": coarse, "fine": replace(coarse, size=SizeConfig(width=1024), extra_modules=1, epochs=20)},
        optim=OptimConfig(beta1=0.9),
    )


PRESETS = {"crn": crn}
