"""Ready-made runs of pix2pix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hdgan.data.config import DataConfig, SizeConfig
from hdgan.families.pix2pix.config import Pix2PixConfig, ResNetConfig
from hdgan.families.pix2pix.train_config import Pix2PixStage, Pix2PixTrainConfig


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
