"""Training runs of pix2pix as plain data: their stages and config, and ready-made runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hdgan.data.config import DataConfig, SizeConfig
from hdgan.families.common.config import without_unused
from hdgan.families.common.train_config import StageConfig, TrainConfig
from hdgan.families.pix2pix.config import Pix2PixConfig, ResNetConfig
from hdgan.families.pix2pix.losses import Pix2PixLoss


@dataclass(frozen=True)
class Pix2PixStage(StageConfig):
    """One stage of training: its resolution and length. All stages train the same networks."""

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


def pix2pix() -> Pix2PixTrainConfig:
    """pix2pix (Isola et al. 2017) on the label maps of Cityscapes at 256x256, as in that paper."""
    size = SizeConfig(width=256, height=256, jitter=30)
    return Pix2PixTrainConfig(
        out=Path("runs/pix2pix"),
        model=Pix2PixConfig(instances=False),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"global": Pix2PixStage(size=size, epochs=200)},
    )


def pairs_pix2pix() -> Pix2PixTrainConfig:
    """pix2pix from image to image (A->B) at 256x256: edges, facades, maps, any paired images."""
    return replace(
        pix2pix(),
        out=Path("runs/pairs-pix2pix"),
        model=Pix2PixConfig(n_labels=0, instances=False),
        data=DataConfig(root=Path("datasets/pairs")),
    )


def pix2pix_resnet() -> Pix2PixTrainConfig:
    """pix2pix with the ResNet generator of its authors' code in place of the U-Net; --model.n-labels 0 for A->B."""
    return replace(
        pix2pix(),
        out=Path("runs/pix2pix-resnet"),
        model=Pix2PixConfig(instances=False, generator=ResNetConfig()),
    )


PRESETS = {"pix2pix": pix2pix, "pairs-pix2pix": pairs_pix2pix, "pix2pix-resnet": pix2pix_resnet}
