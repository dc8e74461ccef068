"""A scorer of the shared dataset, and runs to compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.data import DataConfig, SizeConfig
from hdgan.evaluation import train_scorer

N_LABELS = 4


@pytest.fixture(scope="session")
def scorer(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer that was trained shortly, which no test may change."""
    out = tmp_path_factory.mktemp("scorer") / "scorer.safetensors"
    data = DataConfig(root=dataset, workers=0)
    return train_scorer(data, N_LABELS, SizeConfig(), out, steps=60, width=4, device="cpu")
