"""A dot for each seed, a stroke at the mean, a line for real photos."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from hdgan.reproduce.chart import write_chart

USE = "{http://www.w3.org/2000/svg}use"


def marks(file: Path) -> list[float]:
    """The places of all markers from left to right, without those of the axes, which are drawn without length."""
    tree = ElementTree.parse(file)
    return sorted(float(use.attrib["x"]) for use in tree.iter(USE))


def test_seeds_and_their_mean(tmp_path: Path) -> None:
    panels = {"mean IoU": {"one": [0.2, 0.6], "other": []}}
    write_chart(tmp_path / "bare.svg", panels, {})
    first, stroke, second = marks(tmp_path / "bare.svg")
    assert abs((first + second) / 2 - stroke) < 0.01
    write_chart(tmp_path / "chart.svg", panels, {"mean IoU": 0.7})
    assert "stroke-dasharray" in (tmp_path / "chart.svg").read_text()
    assert "stroke-dasharray" not in (tmp_path / "bare.svg").read_text()
