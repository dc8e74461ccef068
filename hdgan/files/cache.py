"""The folder for files that hdgan can create again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Folder for files that hdgan can create again: HDGAN_CACHE, else XDG_CACHE_HOME/hdgan, else ~/.cache/hdgan."""
    if chosen := os.environ.get("HDGAN_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "hdgan"
    return Path.home() / ".cache" / "hdgan"
