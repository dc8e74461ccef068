"""Training runs of pix2pixHD as plain data: their stages and config, and ready-made runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from hdgan.config.bounds import Doublings, Scales
from hdgan.config.options import option
from hdgan.data.config import DataConfig, ScenesConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import LogConfig, OptimConfig, StageConfig, TrainConfig
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.families.pix2pixhd.model import Pix2PixHD
from hdgan.models.generator import LocalEnhancer
from hdgan.scenes import SPEC


@dataclass(frozen=True)
class Pix2PixHDStage(StageConfig):
    """One stage of coarse-to-fine training: which networks are trained, its resolution and its length."""

    n_enhancers: Doublings = 0
    """Local enhancers around G1: 0 trains G1 alone."""
    n_scales: Scales = 2
    """Number of discriminators; D keeps the resolutions of the stage before."""
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


def coarse_to_fine(
    global_: Pix2PixHDStage, enhancer: Pix2PixHDStage, joint: Pix2PixHDStage
) -> dict[str, Pix2PixHDStage]:
    """The paper's three stages (section 3.2): G1 alone, then G2 with G1 fixed, then all jointly."""
    return {"global": global_, "enhancer": enhancer, "joint": joint}


def demo() -> Pix2PixHDTrainConfig:
    """The built-in street scenes at 128x64, then 256x128: all three stages in a few minutes on two CPU cores."""
    coarse, fine = SizeConfig(width=128, height=64), SizeConfig(width=256, height=128)
    lr = 4e-4  # twice the paper's: there are minutes, not days
    return Pix2PixHDTrainConfig(
        out=Path("runs/demo"),
        model=Pix2PixHDConfig(
            n_labels=SPEC.n_labels,
            feature_channels=3,
            generator=GeneratorConfig(ngf=32, n_downsample=3, n_blocks=4, n_blocks_local=2, upsample="resize"),
            discriminator=DiscriminatorConfig(ndf=32),
            encoder=EncoderConfig(nef=8, n_downsample=3),
        ),
        data=DataConfig(scenes=ScenesConfig(width=256, height=128, train=150, test=16)),
        stages=coarse_to_fine(
            Pix2PixHDStage(size=coarse, images=750, decay=0.0, lr=lr),
            Pix2PixHDStage(size=fine, n_enhancers=1, generator="enhancer", encoder=False, images=120, decay=0.0, lr=lr),
            Pix2PixHDStage(size=fine, n_enhancers=1, images=520, lr=lr),
        ),
        loss=Pix2PixHDLoss(vgg=0.0),
        optim=OptimConfig(ema_decay=0.99),
        log=LogConfig(metrics_every=1, samples_every=250, checkpoint_every=500),
    )


def cityscapes_512p() -> Pix2PixHDTrainConfig:
    """Cityscapes at 1024x512: G1 alone (NVIDIA's label2city_512p)."""
    return Pix2PixHDTrainConfig(
        out=Path("runs/cityscapes-512p"),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"global": Pix2PixHDStage(size=SizeConfig(width=1024), epochs=200)},
    )


def cityscapes_1024p() -> Pix2PixHDTrainConfig:
    """Cityscapes at 2048x1024, coarse to fine: G1 at 1024x512, G2 with G1 fixed, then all jointly."""
    full = SizeConfig(width=2048)
    return Pix2PixHDTrainConfig(
        out=Path("runs/cityscapes-1024p"),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages=coarse_to_fine(
            Pix2PixHDStage(size=SizeConfig(width=1024), epochs=200),
            Pix2PixHDStage(
                size=full, n_enhancers=1, n_scales=3, generator="enhancer", encoder=False, epochs=10, decay=0.0
            ),
            Pix2PixHDStage(size=full, n_enhancers=1, n_scales=3, epochs=90, decay=50 / 90),
        ),
    )


def pairs() -> Pix2PixHDTrainConfig:
    """Image to image (A->B) without labels: edges, stains, depth, any paired images, at their own size."""
    return Pix2PixHDTrainConfig(
        out=Path("runs/pairs"),
        model=Pix2PixHDConfig(n_labels=0, instances=False),
        data=DataConfig(root=Path("datasets/pairs")),
        stages={"global": Pix2PixHDStage(epochs=200)},
    )


PRESETS = {
    "demo": demo,
    "cityscapes-512p": cityscapes_512p,
    "cityscapes-1024p": cityscapes_1024p,
    "pairs": pairs,
}
