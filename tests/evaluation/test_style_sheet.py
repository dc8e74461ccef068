"""Sheets show every cluster with its examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import SizeConfig
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError
from hdgan.evaluation.style_sheet import write_sheet
from hdgan.inference.encoding import open_trained_model
from hdgan.styles import Cluster, StyleBank
from hdgan.styles.crops import SIZE, Cropper


@pytest.fixture(scope="module")
def cropper(styled: Path) -> Cropper:
    return Cropper(open_trained_model(styled, device="cpu").data.reference(SizeConfig()))


@pytest.fixture
def bank(styled: Path) -> StyleBank:
    return StyleBank.load(open_trained_model(styled, device="cpu").bank_file)


def test_a_sheet_has_a_row_for_each_cluster(cropper: Cropper, bank: StyleBank, tmp_path: Path) -> None:
    spec = DatasetSpec.of_colors(("ground", "sky <&>"), ((1, 2, 3), (4, 5, 255)))
    write_sheet(bank, cropper, tmp_path / "sheet.html", spec, examples=2)
    text = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    clusters = [cluster for there in bank.clusters.values() for cluster in there]
    assert text.count('<div class="cluster">') == len(clusters)
    assert text.count("data:image/jpeg;base64,") == sum(min(2, len(cluster.examples)) for cluster in clusters)
    assert '<span class="swatch" style="--color: #0405ff"></span><span>sky &lt;&amp;&gt;</span>' in text
    assert "<h2>class 2</h2>" in text
    assert "http" not in text
    write_sheet(bank, cropper, tmp_path / "sheet.png", examples=3)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width >= 3 * SIZE
        assert image.height >= len(clusters) * SIZE


def test_sheets_that_cannot_be_made_are_refused(cropper: Cropper, bank: StyleBank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sheet\.pdf must end in \.html or \.png"):
        write_sheet(bank, cropper, tmp_path / "sheet.pdf")
    bare = StyleBank({1: (Cluster(np.zeros(2, np.float32)),)}, {}, np.zeros(2, np.float32))
    with pytest.raises(ConfigError, match="have no examples"):
        write_sheet(bare, cropper, tmp_path / "sheet.png")
