"""The notebook runs, and its stored outputs are those of its cells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.examples.notebook import TOUR, code_cells, renew, run_cells, stored_output

MOST_BYTES = 600_000
MOST_DIFFERENCE = 5
"""Mean difference of 8-bit pixels: JPEG's, and that of pictures which another kind of CPU computes."""


def test_the_stored_outputs_are_those_of_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert TOUR.stat().st_size < MOST_BYTES
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = 0
    for cell, output in zip(cells, run_cells(notebook), strict=True):
        stored = stored_output(cell)
        assert output.text == stored.text
        assert type(output.value) is Image.Image or output.value is stored.value is None
        if isinstance(output.value, Image.Image):
            assert isinstance(stored.value, Image.Image)
            new, old = (np.asarray(image).astype(int) for image in (output.value, stored.value))
            assert new.shape == old.shape
            assert np.abs(new - old).mean() < MOST_DIFFERENCE
            shown += 1
    assert shown == 7


def test_renewing_stores_texts_values_and_pictures(tmp_path: Path) -> None:
    sources = ["from PIL import Image\n", "print('two')\n1 + 1", "Image.new('RGB', (8, 8), (200, 100, 50))"]
    cells = [
        {"cell_type": "code", "source": [source], "outputs": [], "execution_count": None, "metadata": {}}
        for source in sources
    ]
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# Ü"]}, *cells]}))
    renew(path)
    first, second, third = code_cells(json.loads(path.read_text(encoding="utf-8")))
    assert first["outputs"] == []
    assert stored_output(second).text == "two\n"
    assert second["outputs"][1]["data"] == {"text/plain": ["2"]}
    picture = stored_output(third).value
    assert isinstance(picture, Image.Image)
    assert np.abs(np.asarray(picture).astype(int) - (200, 100, 50)).max() < 4
