"""The files of one held-out triple."""

from pathlib import Path

import pytest


@pytest.fixture
def label(dataset: Path) -> Path:
    return dataset / "test_label" / "s0_label.png"


@pytest.fixture
def ids(dataset: Path) -> Path:
    return dataset / "test_inst" / "s0_inst.tif"


@pytest.fixture
def photo(dataset: Path) -> Path:
    return dataset / "test_img" / "s0_img.png"
