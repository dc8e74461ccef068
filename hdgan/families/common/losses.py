"""The losses of a run: the options that weigh them, and the criterion that computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from tyro.conf import Suppress

from hdgan.config.bounds import Shift
from hdgan.config.serialization import check_values
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.pool import FakePool

OnMissing = Callable[[str], None]
Shapes = Sequence[tuple[int, int, int]]
"""Batch, height and width of the images of some stages."""


class Penalty(Protocol):
    """What D's objective contains in some steps only."""

    name: str
    """Of its value in metrics.jsonl."""
    weight: float

    def due(self, step: int) -> bool:
        """Whether it is part of the step that follows `step` steps of the stage."""

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        """Its value for a micro batch without the weight, a scalar float32 that is still attached to its graph."""


class Criterion(Protocol):
    """The losses of a family: runs its networks on a micro batch and returns what each of them minimises."""

    names: tuple[str, ...]
    """Of the losses in `Objectives.parts`."""
    perceptual: nn.Module | None
    """The network whose features a perceptual loss compares."""
    penalty: Penalty | None
    """What some steps add to D's objective."""

    def __call__(self, model: Any, batch: Batch) -> Objectives: ...


@dataclass(frozen=True)
class LossConfig(ABC):
    """Losses and their weights. Each family has its own subclass."""

    family: Suppress[str]
    max_shift: Shift = 0
    """For photos that are a few pixels off their label maps: every loss sees each photo shifted by up to this many
    pixels, in both directions, to where it is nearest to the generated image, or to the mean of CRN's images."""

    def __post_init__(self) -> None:
        check_values(self, "loss")

    @abstractmethod
    def criterion(self, perceptual: nn.Module | None, pool: FakePool, augmentation: Augmentation) -> Criterion:
        """The losses of a run.

        Args:
            perceptual: what `load_perceptual` has returned.
            pool: of earlier fakes, for D.
            augmentation: of what D sees.
        """

    def load_perceptual(self, shapes: Shapes = (), on_missing: OnMissing | None = None) -> nn.Module | None:
        """The network whose features a perceptual loss compares, frozen; None for losses without one.

        It maps images [B, 3, H, W] in [-1, 1] to features [B, C, h, w], fine to coarse.

        Args:
            shapes: of the training images, on which programs and networks of timm are tried; 256x256 if empty.
            on_missing: for a dry run: called with what VGG19 or timm's network lacks, which then keeps its random
                initial weights.

        Raises:
            ConfigError, CheckpointError: its weights cannot be loaded, or it cannot take such images.
        """
        return None

    def described(self, perceptual: nn.Module | None) -> LossConfig:
        """These losses with what a checkpoint records of the network that `load_perceptual` has returned."""
        return self

    def defaults_for(self, network: str) -> dict[str, Any]:
        """The options that do not suit another `loss.network`, with the values that they take unless they are given."""
        return {}

    def check(self, model: Any) -> None:  # noqa: B027
        """Make sure that a model of the family can have these losses.

        Raises:
            ConfigError: it cannot.
        """

    def check_photos(self, channels: int) -> None:  # noqa: B027
        """Make sure that the losses can compare photos of so many channels.

        Raises:
            ConfigError: they cannot.
        """

    @property
    def least_side(self) -> int:
        """Pixels that the training images need on each side."""
        return 1

    @property
    def network_name(self) -> str:
        """The name of the network whose features a perceptual loss compares, in messages."""
        return ""

    @property
    def network_file(self) -> Path | None:
        """The file of a scorer or program whose features a perceptual loss compares; None without one."""
        return None
