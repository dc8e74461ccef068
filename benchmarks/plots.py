"""The plots of a device's rows: how near the ceilings, and how much faster than eager PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hdgan.benchmarks.rows import Row
from hdgan.benchmarks.runner import CONTESTANTS
from hdgan.files import atomic_file

_COLOURS = dict(
    zip(
        CONTESTANTS,
        ("#888888", "#b07aa1", "#9c755f", "#4e79a7", "#4e79a7", "#f28e2b", "#e15759", "#59a14f", "#000000"),
        strict=True,
    )
)


def draw_roofline(rows: Sequence[Row], path: Path) -> None:
    """Draw what each contestant achieved over the operations that its work has for a byte, under both ceilings."""
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
        own = [row for row in points if row.contestant == name]
        rates = [row.flops / (row.median_ms * 1e6) for row in own]
        axes.scatter([row.flops / row.bytes for row in own], rates, s=14, color=_COLOURS[name], label=name)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_speedups(rows: Sequence[Row], path: Path) -> None:
    """Draw each case's speed-ups over eager NCHW, of each contestant in its better layout.

    Of both passes where there is a gradient.
    """
    from matplotlib.figure import Figure

    with_gradient = {(row.work, row.case) for row in rows if row.direction == "both"}
    wanted = [
        row
        for row in rows
        if row.speedup is not None and row.direction == ("both" if (row.work, row.case) in with_gradient else "forward")
    ]
    best: dict[tuple[str, ...], Row] = {}
    for row in sorted(wanted, key=lambda row: row.speedup or 0):
        if (row.contestant, row.layout) != ("eager", "NCHW"):  # which is 1
            best[row.work, row.case, row.dtype, row.contestant] = row
    bars = [row for _, row in sorted(best.items())]
    figure = Figure(figsize=(8, max(2.0, 0.24 * len(bars))), layout="constrained")
    axes = figure.add_subplot(xlabel="times as fast as eager PyTorch in NCHW")
    places = range(len(bars))
    speedups = [row.speedup or math.nan for row in bars]
    axes.barh(places, speedups, color=[_COLOURS[row.contestant] for row in bars])
    axes.set_yticks(places, [f"{r.work} {r.case} {r.dtype} {r.layout} {r.contestant}" for r in bars], fontsize=6)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    _save(figure, path)


def _present(rows: Iterable[Row]) -> list[str]:
    found = {row.contestant for row in rows}
    return [name for name in CONTESTANTS if name in found]


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    # The same rows make the same file.
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
