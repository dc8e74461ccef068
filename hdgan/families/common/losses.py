"""The losses of a run: the options that weigh them, and the criterion that computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn
from tyro.conf import Suppress

from hdgan.config.serialization import check_values
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.perceptual import OnMissing
from hdgan.families.common.pool import FakePool


class Criterion(Protocol):
    """The losses of a family: runs its networks on a micro batch and returns what each of them minimises."""

    names: tuple[str, ...]
    """Of the losses in `Objectives.parts`."""
    perceptual: nn.Module | None
    """The network whose features a perceptual loss compares."""

    def __call__(self, model: Any, batch: Batch) -> Objectives: ...


@dataclass(frozen=True)
class LossConfig(ABC):
    """Losses and their weights. Each family has its own subclass."""

    family: Suppress[str]

    def __post_init__(self) -> None:
        check_values(self, "loss")

    @abstractmethod
    def criterion(self, perceptual: nn.Module | None, pool: FakePool) -> Criterion:
        """The losses of a run.

        Args:
            perceptual: what `load_perceptual` has returned.
            pool: of earlier fakes, for D.
        """

    def load_perceptual(self, on_missing: OnMissing | None = None) -> nn.Module | None:
        """The network whose features a perceptual loss compares; None for losses without one.

        Args:
            on_missing: for a dry run, as of `load_network`.

        Raises:
            ConfigError, CheckpointError: its weights cannot be loaded.
        """
        return None

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
