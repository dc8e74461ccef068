"""Tables of features made by hand, and a run to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdgan.styles.table import FeatureTable, Origin

MakeTable = Callable[..., FeatureTable]


@pytest.fixture
def copied(styled: Path, tmp_path: Path) -> Path:
    """A copy of the run with styles, for a test that changes it."""
    return Path(shutil.copytree(styled, tmp_path / "copied"))


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Make a table of instances by class; each picture of 10x10 pixels has one instance."""

    def make(features: dict[int, list[list[float]]], area: int = 50) -> FeatureTable:
        label = np.array([of for of, rows in features.items() for _ in rows], np.int64)
        n = len(label)
        return FeatureTable(
            picture=np.arange(n, dtype=np.int32),
            id=label * 1000 + np.arange(n),
            label=label,
            area=np.full(n, area, np.int64),
            box=np.tile(np.array([1, 2, 6, 10], np.int32), (n, 1)),
            feature=np.array([row for rows in features.values() for row in rows], np.float32),
            stem=np.array([f"picture{k}" for k in range(n)]),
            size=np.full((n, 2), 10, np.int64),
            origin=Origin("0123456789abcdef", "step-1 of made"),
        )

    return make
