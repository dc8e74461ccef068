"""Ready-made runs of CRN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hdgan.data.config import DataConfig, SizeConfig
from hdgan.families.common.train_config import OptimConfig
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.train_config import CRNStage, CRNTrainConfig


def crn() -> CRNTrainConfig:
    """CRN on Cityscapes, as its authors train it: 200 epochs at 512x256, and 20 at 1024x512 with one module more."""
    coarse = CRNStage(size=SizeConfig(width=512), epochs=200, decay=0.0, lr=1e-4)
    return CRNTrainConfig(
        out=Path("runs/crn"),
        model=CRNConfig(n_modules=7),
        data=DataConfig(root=Path("datasets/cityscapes")),
        stages={"coarse": coarse, "fine": replace(coarse, size=SizeConfig(width=1024), extra_modules=1, epochs=20)},
        optim=OptimConfig(beta1=0.9),
    )


PRESETS = {"crn": crn}
