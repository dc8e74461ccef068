"""Trackers of experiments beside TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...
