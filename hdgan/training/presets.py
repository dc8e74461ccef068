"""Ready-made configs. Each is a function; every field can still be changed on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hdgan.data.config import DataConfig, ScenesConfig, SizeConfig
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.losses import CRNLoss
from hdgan.families.pix2pix.config import Pix2PixConfig, ResNetConfig
from hdgan.families.pix2pix.losses import Pix2PixLoss
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, EncoderConfig, GeneratorConfig, Pix2PixHDConfig
from hdgan.families.pix2pixhd.losses import Pix2PixHDLoss
from hdgan.scenes import SPEC
from hdgan.training.config import LogConfig, OptimConfig, StageConfig, TrainConfig


def coarse_to_fine(global_: StageConfig, enhancer: StageConfig, joint: StageConfig) -> dict[str, StageConfig]:
    """The paper's three stages (section 3.2): G1 alone, then G2 with G1 fixed, then all jointly."""
    return {"global": global_, "enhancer": enhancer, "joint": joint}


def demo() -> TrainConfig:
    """The built-in street scenes at 128x64, then 256x128: all three stages in a few minutes on two CPU cores."""
    coarse, fine = SizeConfig(width=128, height=64), SizeConfig(width=256, height=128)
    lr = 4e-4  # twice the paper's: there are minutes, not days
    return TrainConfig(
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
            StageConfig(size=coarse, images=750, decay=0.0, lr=lr),
            StageConfig(size=fine, n_enhancers=1, generator="enhancer", encoder=False, images=120, decay=0.0, lr=lr),
            StageConfig(size=fine, n_enhancers=1, images=520, lr=lr),
        ),
        loss=Pix2PixHDLoss(vgg=0.0),
        optim=OptimConfig(ema_decay=0.99),
        log=LogConfig(metrics_every=1, samples_every=250, checkpoint_every=500),
    )


def cityscapes_512p() -> TrainConfig:
    """Cityscapes at 1024x512: G1 alone (NVIDIA's label2city_512p)."""
    return TrainConfig(
        out=Path("runs/cityscapes-512p"),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"global": StageConfig(size=SizeConfig(width=1024), epochs=200)},
    )


def cityscapes_1024p() -> TrainConfig:
    """Cityscapes at 2048x1024, coarse to fine: G1 at 1024x512, G2 with G1 fixed, then all jointly."""
    full = SizeConfig(width=2048)
    return TrainConfig(
        out=Path("runs/cityscapes-1024p"),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages=coarse_to_fine(
            StageConfig(size=SizeConfig(width=1024), epochs=200),
            StageConfig(
                size=full, n_enhancers=1, n_scales=3, generator="enhancer", encoder=False, epochs=10, decay=0.0
            ),
            StageConfig(size=full, n_enhancers=1, n_scales=3, epochs=90, decay=50 / 90),
        ),
    )


def pairs() -> TrainConfig:
    """Picture to picture (A->B) without labels: edges, stains, depth, any paired pictures, at their own size."""
    return TrainConfig(
        out=Path("runs/pairs"),
        model=Pix2PixHDConfig(n_labels=0, instances=False),
        data=DataConfig(root=Path("datasets/pairs")),
        stages={"global": StageConfig(epochs=200)},
    )


def crn() -> TrainConfig:
    """CRN on Cityscapes, as its authors train it: 200 epochs at 512x256, and 20 at 1024x512 with a module more."""
    coarse = StageConfig(size=SizeConfig(width=512), epochs=200, decay=0.0, lr=1e-4)
    return TrainConfig(
        out=Path("runs/crn"),
        model=CRNConfig(n_modules=7),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"coarse": coarse, "fine": replace(coarse, size=SizeConfig(width=1024), n_enhancers=1, epochs=20)},
        loss=CRNLoss(),
        optim=OptimConfig(beta1=0.9),
    )


def pix2pix() -> TrainConfig:
    """pix2pix (Isola et al. 2017) on the label maps of Cityscapes at 256x256, as in that paper."""
    size = SizeConfig(width=256, height=256, jitter=30)
    return TrainConfig(
        out=Path("runs/pix2pix"),
        model=Pix2PixConfig(instances=False),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"global": StageConfig(size=size, epochs=200)},
        loss=Pix2PixLoss(),
    )


def pairs_pix2pix() -> TrainConfig:
    """pix2pix from picture to picture (A->B) at 256x256: edges, facades, maps, any paired pictures."""
    return replace(
        pix2pix(),
        out=Path("runs/pairs-pix2pix"),
        model=Pix2PixConfig(n_labels=0, instances=False),
        data=DataConfig(root=Path("datasets/pairs")),
    )


def pix2pix_resnet() -> TrainConfig:
    """pix2pix with the ResNet generator of its authors' code in place of the U-Net; --model.n-labels 0 for A->B."""
    return replace(
        pix2pix(),
        out=Path("runs/pix2pix-resnet"),
        model=Pix2PixConfig(instances=False, generator=ResNetConfig()),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "cityscapes-512p": cityscapes_512p,
    "cityscapes-1024p": cityscapes_1024p,
    "pairs": pairs,
    "crn": crn,
    "pix2pix": pix2pix,
    "pairs-pix2pix": pairs_pix2pix,
    "pix2pix-resnet": pix2pix_resnet,
}
