"""What tests of regions share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from hdgan.regions import Box, RegionRun, RegionStorage


class Held:
    """Pixels of a tensor."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels

    def read(self, box: Box) -> Tensor:
        return self._pixels[..., slice(*box.rows), slice(*box.columns)]


def run_in(limit: int = 2**30, folder: Path | None = None, **options: Any) -> RegionRun:
    """A run that keeps so many bytes in memory."""
    return RegionRun(RegionStorage(limit, folder or Path(tempfile.gettempdir())), **options)
