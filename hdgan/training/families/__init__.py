"""What the trainer knows of each model family: its losses, and the step that takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from hdgan.models.config import CRNConfig, ModelConfig, Pix2PixConfig, Pix2PixHDConfig
from hdgan.training.families import crn, pix2pix, pix2pixhd
from hdgan.training.families.crn import CRNLoss
from hdgan.training.families.perceptual import OnMissing
from hdgan.training.families.pix2pix import Pix2PixLoss
from hdgan.training.families.pix2pixhd import Pix2PixHDLoss
from hdgan.training.pool import FakePool
from hdgan.training.step import Inputs, Objectives

AnyLoss = Pix2PixHDLoss | Pix2PixLoss | CRNLoss
"""A union of the loss configs of all families; files and the command line choose by `family`."""


class Criterion(Protocol):
    """The step of a family: runs its networks on a micro batch and returns what each of them minimises."""

    names: tuple[str, ...]
    """Of the losses in `Objectives.parts`."""
    perceptual: nn.Module | None
    """The network that a perceptual loss takes its features of."""

    def __call__(self, model: Any, batch: Inputs) -> Objectives: ...


@dataclass(frozen=True)
class Family:
    """A model family in the trainer."""

    loss: type[AnyLoss]
    """Losses with their weights, an option of a run."""
    criterion: Callable[[Any, nn.Module | None, FakePool], Criterion]
    """Makes the step of a loss config, a network for perceptual losses, and a pool of fakes."""
    perceptual: Callable[[Any, OnMissing | None], nn.Module | None]
    """Loads the network that a loss config needs for a perceptual loss; for a dry run also without its weights."""


FAMILIES: dict[type[ModelConfig], Family] = {
    Pix2PixHDConfig: Family(Pix2PixHDLoss, pix2pixhd.Criterion, pix2pixhd.load_perceptual),
    CRNConfig: Family(CRNLoss, crn.Criterion, crn.load_perceptual),
    Pix2PixConfig: Family(Pix2PixLoss, pix2pix.Criterion, pix2pix.load_perceptual),
}
