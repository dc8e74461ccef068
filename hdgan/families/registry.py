"""All model families in one table: what builds a family's networks, and what trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from hdgan.families.common.batch import Inputs, Objectives
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.model import ImageModel
from hdgan.families.common.perceptual import OnMissing
from hdgan.families.common.pool import FakePool
from hdgan.families.crn import losses as crn
from hdgan.families.crn.config import CRNConfig
from hdgan.families.crn.model import CRN
from hdgan.families.pix2pix import losses as pix2pix
from hdgan.families.pix2pix.config import Pix2PixConfig
from hdgan.families.pix2pix.model import Pix2Pix
from hdgan.families.pix2pixhd import losses as pix2pixhd
from hdgan.families.pix2pixhd.config import Pix2PixHDConfig
from hdgan.families.pix2pixhd.model import Pix2PixHD

AnyModelConfig = Pix2PixHDConfig | Pix2PixConfig | CRNConfig
"""A union of the configs of all families; files and the command line choose by `family`."""
AnyLoss = pix2pixhd.Pix2PixHDLoss | pix2pix.Pix2PixLoss | crn.CRNLoss
"""A union of the loss configs of all families; files and the command line choose by `family`."""


class Criterion(Protocol):
    """The losses of a family: runs its networks on a micro batch and returns what each of them minimises."""

    names: tuple[str, ...]
    """Of the losses in `Objectives.parts`."""
    perceptual: nn.Module | None
    """The network whose features a perceptual loss compares."""

    def __call__(self, model: Any, batch: Inputs) -> Objectives: ...


@dataclass(frozen=True)
class Family:
    """A model family."""

    model: type[ImageModel]
    """Built from a config and whether it has its discriminator."""
    loss: type[AnyLoss]
    """Losses with their weights, an option of a run."""
    criterion: Callable[[Any, nn.Module | None, FakePool], Criterion]
    """Makes the criterion of a loss config, a network for perceptual losses, and a pool of fakes."""
    perceptual: Callable[[Any, OnMissing | None], nn.Module | None]
    """Loads the network that a loss config needs for a perceptual loss; for a dry run also without its weights."""


FAMILIES: dict[type[ModelConfig], Family] = {
    Pix2PixHDConfig: Family(Pix2PixHD, pix2pixhd.Pix2PixHDLoss, pix2pixhd.Criterion, pix2pixhd.load_perceptual),
    CRNConfig: Family(CRN, crn.CRNLoss, crn.Criterion, crn.load_perceptual),
    Pix2PixConfig: Family(Pix2Pix, pix2pix.Pix2PixLoss, pix2pix.Criterion, pix2pix.load_perceptual),
}


def build_model(config: ModelConfig, *, with_discriminator: bool = True) -> ImageModel:
    """A model with new weights.

    Args:
        config: the architecture; its type is that of the family.
        with_discriminator: False leaves D out, which inference does not need.
    """
    return FAMILIES[type(config)].model(config, with_discriminator=with_discriminator)
