"""The curves of a run as SVG that takes text, colours and size from the page it is in."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

MOST_POINTS = 1000
"""Points of a curve."""

_MOST_MARKED = 60
"""A curve of no more points shows each of them."""

_INK, _LINE, _BAND = "#010101", "#020202", "#030303"
_CURVES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
"""As many as the chart with most curves has."""
# matplotlib knows no CSS variables: it draws in stand-in colours, which become variables in the SVG.
_VARIABLES = {_INK: "--muted", _LINE: "--line", _BAND: "--band"} | {
    color: f"--curve-{i}" for i, color in enumerate(_CURVES)
}


@dataclass(frozen=True)
class Span:
    """A stage on the axis of steps."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Chart:
    """A drawn chart: the names of its curves are in the order of the page's variables --curve-0, --curve-1, …"""

    title: str
    note: str
    names: list[str]
    svg: Markup


@dataclass(frozen=True)
class _Kind:
    title: str
    note: str
    names: dict[str, str]
    """Key of the metrics: name of the curve."""
    smooth: bool = False
    scale: Literal["linear", "log"] = "linear"
    from_zero: bool = False
    of_validation: bool = False


_VALIDATIONS = {
    "l1": ("validation L1", "mean absolute difference of pictures in [-1, 1]"),
    "psnr": ("validation PSNR", "in dB; higher is better"),
    "ssim": ("validation SSIM", "higher is better"),
    "miou": ("validation mean IoU", "of what the scorer recognises; higher is better"),
    "pixel_accuracy": ("validation pixel accuracy", "of what the scorer recognises; higher is better"),
    "scorer_fid": ("validation scorer FID", "lower is better"),
}
SIZES_DIFFER = "stages train at different sizes, so a value of one cannot be compared with that of another"
VALIDATION_TITLES = {name: title for name, (title, _) in _VALIDATIONS.items()}
"""Of the metrics of `LogConfig.best`."""

_KINDS = (
    _Kind(
        "Generator losses",
        "weighted, except the GAN term",
        {
            "g_gan": "GAN",
            "g_feature_matching": "feature matching",
            "g_vgg": "VGG",
            "g_l1": "L1",
            "g_perceptual": "perceptual",
        },
        smooth=True,
        scale="log",
    ),
    _Kind(
        "Discriminator losses",
        "sum over the scales",
        {"d_real": "real", "d_fake": "generated"},
        smooth=True,
        from_zero=True,
    ),
    _Kind(
        "Distances",
        "of the balanced perceptual loss, before they are balanced",
        {"l1_image": "image", **{f"l1_feature_{i}": f"feature {i}" for i in range(1, 6)}},
        smooth=True,
        scale="log",
    ),
    *(
        _Kind(f"{title[0].upper()}{title[1:]}", note, {f"val_{name}": title}, of_validation=True)
        for name, (title, note) in _VALIDATIONS.items()
    ),
    _Kind("Learning rate", "of Adam, for G, E and D", {"lr": "learning rate"}, from_zero=True),
)
LOSS_TITLES = {key: f"{key[0].upper()} {name}" for kind in _KINDS[:2] for key, name in kind.names.items()}
"""Of the losses of G and D, by their names in metrics.jsonl."""


def draw_charts(records: Sequence[dict[str, Any]], spans: Sequence[Span], note: str = "") -> list[Chart]:
    """Draw the charts that a run's metrics have values for.

    Args:
        records: of the run.
        spans: its stages.
        note: added to those of the charts of validation pictures.
    """
    charts = []
    for kind in _KINDS:
        curves = {key: _Curve.of(key, records) for key in kind.names}
        curves = {key: curve for key, curve in curves.items() if len(curve.steps)}
        if curves:
            svg = _draw(kind, list(curves.values()), spans)
            told = "; ".join(filter(None, [kind.note, note if kind.of_validation else ""]))
            charts.append(Chart(kind.title, told, [kind.names[key] for key in curves], svg))
    return charts


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 … count - 1, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a twentieth of the values; at the ends over those that there are."""
    n, reach = len(values), len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    begin = np.maximum(np.arange(n) - reach, 0)
    end = np.minimum(np.arange(n) + reach + 1, n)
    return (sums[end] - sums[begin]) / (end - begin)


@dataclass(frozen=True)
class _Curve:
    steps: np.ndarray  # [n] int
    values: np.ndarray  # [n] float
    stages: list[str] = field(repr=False)

    @staticmethod
    def of(key: str, records: Sequence[dict[str, Any]]) -> _Curve:
        own = [record for record in records if key in record]
        steps, values = [record["step"] for record in own], [record[key] for record in own]
        return _Curve(np.array(steps, int), np.array(values, float), [record["stage"] for record in own])

    def smoothed(self) -> np.ndarray:
        """Values smoothed within each stage: losses jump where another stage begins."""
        stages = np.array(self.stages)
        values = self.values.copy()
        for stage in set(self.stages):
            values[stages == stage] = smoothed(self.values[stages == stage])
        return values


def _draw(kind: _Kind, curves: Sequence[_Curve], spans: Sequence[Span]) -> Markup:
    # Only a report needs matplotlib, which takes a second to import.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(6, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for curve, color in zip(curves, _CURVES, strict=False):
        _plot(axes, curve, color, kind)
    values = np.concatenate([curve.values for curve in curves])
    # A few outliers, common while D and G find their balance, must not flatten the rest.
    low, high = np.percentile(values, [0.2, 99.8]) if kind.smooth else (values.min(), values.max())
    scale = kind.scale if high > 0 else "linear"
    axes.set_yscale(scale)
    margin = 0.08 * ((high - low) or abs(high) or 1.0)
    if scale == "log":
        axes.set_ylim(max(low, high * 1e-4) / 1.15, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0 if kind.from_zero else low - margin, high + margin)
        axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=7)
    _shade(axes, spans)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.tick_params(which="both", colors=_INK, length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": kind.title}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue(), kind.title)


def _plot(axes: Any, curve: _Curve, color: str, kind: _Kind) -> None:
    shown = spread(len(curve.steps), MOST_POINTS)
    steps, marker = curve.steps[shown], "o" if len(shown) <= _MOST_MARKED else ""
    line = {"color": color, "marker": marker, "markersize": 3.5, "solid_joinstyle": "round"}
    if kind.smooth and not marker:
        axes.plot(steps, curve.values[shown], color=color, linewidth=0.7, alpha=0.25)
        axes.plot(steps, curve.smoothed()[shown], linewidth=1.7, **line)
    else:
        axes.plot(steps, curve.values[shown], linewidth=1.7, **line)


def _shade(axes: Any, spans: Sequence[Span]) -> None:
    """Shade every second stage and name all that have room: above the chart, or upright inside it."""
    end = max((span.last for span in spans), default=1)
    axes.set_xlim(0, max(end, 1) * 1.01)
    for i, span in enumerate(spans):
        if i % 2:
            axes.axvspan(span.first, span.last, color=_BAND, linewidth=0, zorder=0)
        share = (span.last - span.first) / end
        upright = share < 0.015 * len(span.name)
        if share > 0.025:
            axes.annotate(
                span.name,
                (span.first, 1),
                (2, -4 if upright else 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                rotation=270 if upright else 0,
                verticalalignment="top" if upright else "bottom",
                color=_INK,
                fontsize=8.5,
                parse_math=False,
            )


def _inline(svg: str, title: str) -> Markup:
    """Make matplotlib's file an element of a page: no ids to clash, no fixed size, colours from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{title}">', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Markup(svg)
