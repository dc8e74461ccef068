"""Small sources of each format, and their conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdgan.data import DataConfig, DatasetSpec
from hdgan.data.class_file import write_classes
from hdgan.data.conversion import ConversionOptions, ConversionReport, convert_dataset
from hdgan.data.images import read_map
from hdgan.data.inspection import check_dataset

Convert = Callable[..., ConversionReport]
COLORS = np.array([[10, 20, 30], [10, 20, 31], [200, 0, 0], [0, 0, 0]], np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder in which `save` writes the source."""
    return tmp_path / "source"


@pytest.fixture
def convert(root: Path, tmp_path: Path) -> Convert:
    """Convert the source to `out`, in which nothing may be wrong afterwards."""

    def run(**options: object) -> ConversionReport:
        keywords = {name: options.pop(name) for name in ("format", "link", "say", "progress") if name in options}
        report = convert_dataset(ConversionOptions(**{"source": root} | options), tmp_path / "out", **keywords)
        assert not (tmp_path / "out.partial").exists()
        requirements = report.summary.n_labels or None
        checked = check_dataset(
            DataConfig(root=report.out, dontcare=report.summary.dontcare, instance_divisor=report.summary.divisor),
            requirements,
        )
        assert checked.faults == []
        return report

    return run


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A classes.csv of four colours."""
    file = tmp_path / "given.csv"
    write_classes(file, DatasetSpec(("sky", "road", "car", "void"), COLORS))
    return file


@pytest.fixture
def maps(tmp_path: Path) -> Callable[[str], tuple[np.ndarray, np.ndarray | None]]:
    """Read the label map and the instance map of a sample of the result, such as train/a."""

    def read(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        phase, stem = name.split("/", 1)
        ids = list((tmp_path / "out" / f"{phase}_inst").glob(f"{stem}.*"))
        label = read_map(tmp_path / "out" / f"{phase}_label" / f"{stem}.png")
        return label, read_map(ids[0]) if ids else None

    return read
