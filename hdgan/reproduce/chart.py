"""A chart of scores: a panel for each metric, a line for each row, a dot for each seed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from hdgan.files import write_text

Scores = Mapping[str, Sequence[float]]
"""The values of a metric by row, one for each seed."""

_DOTS, _INK, _LINE = "#2a6f97", "#333333", "#d5d9dd"
_FONT = 9


def write_chart(file: Path, panels: Mapping[str, Scores], oracle: Mapping[str, float | None]) -> None:
    """Draw dots of all seeds, and a stroke at their mean, as SVG on white.

    Args:
        file: an SVG file, which is written atomically.
        panels: scores by the heading of their panel; all panels have the same rows, but some may have no values.
        oracle: the score of real photos, by the heading of its panel, if there is one.

    Raises:
        HdganError: the file cannot be written.
    """
    import matplotlib  # which takes a second to import
    from matplotlib.figure import Figure

    rows = list(next(iter(panels.values())))
    figure = Figure(figsize=(1.3 + 2.4 * len(panels), 0.7 + 0.28 * len(rows)), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, scores) in zip(every, panels.items(), strict=True):
        _draw(axes, heading, scores, oracle.get(heading))
    every[0].set_yticks(range(len(rows)), rows)
    every[0].invert_yaxis()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    write_text(file, buffer.getvalue())


def _draw(axes: Any, heading: str, scores: Scores, oracle: float | None) -> None:
    for place, values in enumerate(scores.values()):
        axes.plot(values, [place] * len(values), "o", color=_DOTS, markersize=4.5, alpha=0.6, markeredgewidth=0)
        if len(values):
            axes.plot([mean(values)], [place], "|", color=_DOTS, markersize=12, markeredgewidth=1.5)
    if oracle is not None:
        axes.axvline(oracle, color=_INK, linestyle="dashed", linewidth=1)
    axes.set_title(heading, fontsize=_FONT + 1, color=_INK)
    axes.margins(x=0.12, y=0.1)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0, labelsize=_FONT)
    axes.spines[:].set_visible(False)
