"""The plots of a device's rows: how near they are to the ceilings, and how much faster than eager PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hdgan.benchmarks.rows import Measurement
from hdgan.benchmarks.runner import IMPLEMENTATIONS
from hdgan.files import atomic_file

_COLOURS = dict(
    zip(
        IMPLEMENTATIONS,
        (
            "#888888",
            "#b07aa1",
            "#9c755f",
            "#4e79a7",
            "#4e79a7",
            "#f28e2b",
            "#edc948",
            "#e15759",
            "#59a14f",
            "#76b7b2",
            "#000000",
        ),
        strict=True,
    )
)


def draw_roofline(rows: Sequence[Measurement], path: Path) -> None:
    """Draw the rate that each implementation reached over the operations of its case per byte, under both ceilings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    points = [row for row in rows if row.flops and row.bytes]
    intensities = [row.flops / row.bytes for row in points] or [1.0]
    span = [min(intensities) / 2, max(intensities) * 2]
    for dtype, row in {row.dtype: row for row in points}.items():
        ridge = row.matmul_tflop_s * 1e3 / row.copy_gb_s
        x = [span[0], *([ridge] if span[0] < ridge < span[1] else []), span[1]]
        y = [min(value * row.copy_gb_s, row.matmul_tflop_s * 1e3) for value in x]
        axes.plot(
            x, y, color="black", linewidth=1, linestyle="-" if dtype == "float32" else "--", label=f"ceiling, {dtype}"
        )
    for name in _present(points):
        own = [row for row in points if row.implementation == name]
        rates = [row.flops / (row.median_ms * 1e6) for row in own]
        axes.scatter([row.flops / row.bytes for row in own], rates, s=14, color=_COLOURS[name], label=name)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_speedups(rows: Sequence[Measurement], path: Path) -> None:
    """Draw the speed-ups of each case over eager NCHW, with each implementation in its better layout.

    They are of both passes together where there is a gradient.
    """
    from matplotlib.figure import Figure

    both = {(row.benchmark, row.case) for row in rows if row.direction == "both"}
    compared = [
        row
        for row in rows
        if row.speedup is not None and row.direction == ("both" if (row.benchmark, row.case) in both else "forward")
    ]
    best: dict[tuple[str, ...], Measurement] = {}
    for row in sorted(compared, key=lambda row: row.speedup or 0):
        if (row.implementation, row.layout) != ("eager", "NCHW"):  # which is 1
            best[row.benchmark, row.case, row.dtype, row.implementation] = row
    bars = [row for _, row in sorted(best.items())]
    figure = Figure(figsize=(8, max(2.0, 0.24 * len(bars))), layout="constrained")
    axes = figure.add_subplot(xlabel="times as fast as eager PyTorch in NCHW")
    places = range(len(bars))
    speedups = [row.speedup or math.nan for row in bars]
    axes.barh(places, speedups, color=[_COLOURS[row.implementation] for row in bars])
    axes.set_yticks(
        places, [f"{r.benchmark} {r.case} {r.dtype} {r.layout} {r.implementation}" for r in bars], fontsize=6
    )
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    _save(figure, path)


def _present(rows: Iterable[Measurement]) -> list[str]:
    found = {row.implementation for row in rows}
    return [name for name in IMPLEMENTATIONS if name in found]


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    # The same rows make the same file.
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
