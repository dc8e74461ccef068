"""The sizes of `hdgan reproduce`: how large the images, networks and trainings of all rows are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hdgan.data.config import ScenesConfig


@dataclass(frozen=True)
class Scale:
    """How large all runs of the tables are."""

    name: str
    width: int
    """Of the images, in pixels."""
    height: int
    train: int
    """Training scenes."""
    test: int
    """Held-out scenes."""
    coarse: int
    """Training images that G1 sees at half the resolution, where there is an enhancer."""
    enhancer: int
    """Training images that the enhancer sees with G1 fixed."""
    joint: int
    """Training images that all networks see at the full resolution."""
    decay: int
    """Number of last images of a run over which its learning rate falls to zero."""
    batch_size: int
    lr: float
    ngf: int
    """Channels of pix2pixHD's first convolution."""
    ndf: int
    """Channels of the discriminators' first convolution."""
    n_blocks: int
    """Residual blocks of G1."""
    unet: int
    """Channels of the first convolution of pix2pix's U-Net."""
    crn: float
    """Factor on the channels of CRN's modules."""
    network_steps: int
    """Steps of the scorer's and the perceptual network's training."""
    workers: int
    """Data workers of a run."""
    checkpoints: int
    """How many times a run is saved, with its end. A run that is killed continues from there; Ctrl-C always saves."""
    precision: Literal["float32", "bfloat16"]
    """Of the runs. Scorer and perceptual network are trained in float32, and scores are computed in it."""

    @property
    def images(self) -> int:
        """Training images that every row sees."""
        return self.coarse + self.enhancer + self.joint

    @property
    def steps(self) -> int:
        """Optimizer steps of every run, over all its stages."""
        return sum(math.ceil(images / self.batch_size) for images in (self.coarse, self.enhancer, self.joint))

    @property
    def scenes(self) -> ScenesConfig:
        return ScenesConfig(width=self.width, height=self.height, train=self.train, test=self.test)


SCALES: dict[str, Scale] = {
    "small": Scale(
        "small",
        width=128,
        height=64,
        train=240,
        test=40,
        coarse=420,
        enhancer=120,
        joint=540,
        decay=270,
        batch_size=1,
        lr=4e-4,
        ngf=32,
        ndf=16,
        n_blocks=4,
        unet=32,
        crn=1 / 12,
        network_steps=900,
        workers=0,
        checkpoints=3,
        precision="float32",
    ),
    # Images are larger than the 70 pixels that a discriminator sees.
    "medium": Scale(
        "medium",
        width=256,
        height=128,
        train=1200,
        test=100,
        coarse=3600,
        enhancer=800,
        joint=3600,
        decay=1800,
        batch_size=1,
        lr=4e-4,
        ngf=32,
        ndf=32,
        n_blocks=4,
        unet=32,
        crn=1 / 12,
        network_steps=1500,
        workers=0,
        checkpoints=10,
        precision="bfloat16",
    ),
    # Sized for ten minutes of one H200 by a prediction (docs/design.md), in which the start of a run takes longer than
    # its steps. Therefore jobs side by side hide each other's start, there are few scenes to render, images are read
    # without workers (four of them took 7 ms on a CPU core), and no run is saved before its end.
    "gpu": Scale(
        "gpu",
        width=256,
        height=128,
        train=400,
        test=100,
        coarse=1600,
        enhancer=400,
        joint=2000,
        decay=1000,
        batch_size=4,
        lr=4e-4,
        ngf=64,
        ndf=32,
        n_blocks=6,
        unet=64,
        crn=1 / 8,
        network_steps=1000,
        workers=0,
        checkpoints=1,
        precision="bfloat16",
    ),
}
