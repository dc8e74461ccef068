"""Curves of a run and spectra of its images as SVG, which takes font, colours and size from its page (page.css)."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from hdgan.reporting.chart_specs import CHARTS, ChartSpec

MOST_POINTS = 1000
"""Maximum number of points of a drawn curve."""

_MOST_MARKED = 60
"""Curves of at most this many points have each point marked."""

_INK, _LINE, _BAND = "#010101", "#020202", "#030303"
_CURVES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
_FONT, _STAGE_FONT = 9, 8.5
"""Size of the numbers and names at the axes, and of the names of stages, in units of the drawing, which is 432 of them
wide. They differ, since the page tells them apart by their size."""
_LINES = ("solid", "dashed", "dotted")
"""Of the first six curves of a chart, of the next six, and so on; names that matplotlib and CSS share."""
# matplotlib does not know CSS variables: it draws in stand-in colours, which are replaced by variables in the SVG.
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
class CurveStyle:
    """What tells a curve of a chart from the others."""

    name: str
    color: int
    """The number of the page's variable, such as 0 of --curve-0."""
    line: str
    """Its style in CSS."""


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    title: str
    note: str
    curves: list[CurveStyle]
    svg: Markup


def draw_charts(records: Sequence[dict[str, Any]], spans: Sequence[Span], note: str = "") -> list[Chart]:
    """Draw every chart for which the metrics of a run have values.

    Args:
        records: the lines of metrics.jsonl, in order. Each has `step` and `stage`.
        spans: the stages of the run.
        note: a sentence that is added to the notes of the charts of validation metrics.
    """
    charts = []
    known = list(dict.fromkeys(key for record in records for key in record))
    for spec in CHARTS:
        curves = [_Curve.of(key, name, records) for key, name in _names_of(spec, known).items()]
        if curves:
            styles = [_style(curve.name, number) for number, curve in enumerate(curves)]
            notes = [spec.note, note] if note and spec.of_validation else [spec.note]
            charts.append(Chart(spec.title, " ".join(notes), styles, _draw(spec, curves, styles, spans)))
    return charts


def _names_of(spec: ChartSpec, known: Sequence[str]) -> dict[str, str]:
    """The names of those curves of a chart that the metrics have, by their keys."""
    found = ((re.fullmatch(key, other), name) for key, name in spec.names.items() for other in known)
    return {match[0]: match.expand(name) for match, name in found if match}


def _style(name: str, number: int) -> CurveStyle:
    """How the curve of a number, from 0 on, is drawn."""
    again, color = divmod(number, len(_CURVES))
    return CurveStyle(name, color, _LINES[again % len(_LINES)])


def draw_spectra(
    title: str,
    note: str,
    frequencies: Sequence[float],
    spectra: Mapping[str, Sequence[float]],
    limits: tuple[float, float],
) -> Chart:
    """Draw power spectra over frequency.

    Args:
        title, note: of the chart.
        frequencies: in cycles per pixel.
        spectra: in dB, of the length of `frequencies`, by the names of their curves.
        limits: lowest and highest level in dB that charts with a common axis show.
    """
    figure, axes = _axes()
    styles = [_style(name, number) for number, name in enumerate(spectra)]
    for style, levels in zip(styles, spectra.values(), strict=True):
        color = _CURVES[style.color]
        axes.plot(frequencies, levels, color=color, linestyle=style.line, linewidth=1.7, solid_joinstyle="round")
    axes.set_ylim(limits[0] - 1, limits[1] + 1)
    axes.set_xlim(0, max(frequencies) * 1.01)
    axes.set_xlabel("cycles per pixel", color=_INK, fontsize=_FONT)
    return Chart(title, note, styles, _svg(figure, axes, title))


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 … count - 1, evenly spread, with the first and the last of them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a twentieth of the values [n], at both ends over the values that exist."""
    from scipy.ndimage import uniform_filter1d  # which takes long to import, as matplotlib does

    window = partial(uniform_filter1d, size=2 * (len(values) // 40) + 1, mode="constant")
    return window(values) / window(np.ones_like(values))


@dataclass(frozen=True)
class _Curve:
    name: str
    steps: np.ndarray  # [n] int
    values: np.ndarray  # [n] float
    stages: list[str] = field(repr=False)

    @staticmethod
    def of(key: str, name: str, records: Sequence[dict[str, Any]]) -> _Curve:
        own = [record for record in records if key in record]
        steps, values = [record["step"] for record in own], [record[key] for record in own]
        return _Curve(name, np.array(steps, int), np.array(values, float), [record["stage"] for record in own])

    def smoothed(self) -> np.ndarray:
        """The values, smoothed within each stage since losses jump where another stage begins."""
        stages = np.array(self.stages)
        values = self.values.copy()
        for stage in set(self.stages):
            values[stages == stage] = smoothed(self.values[stages == stage])
        return values


def _draw(spec: ChartSpec, curves: Sequence[_Curve], styles: Sequence[CurveStyle], spans: Sequence[Span]) -> Markup:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = _axes()
    for curve, style in zip(curves, styles, strict=True):
        _plot(axes, curve, style, spec)
    values = np.concatenate([curve.values for curve in curves])
    # Outliers are common while D and G find their balance. A few of them must not flatten the rest.
    low, high = np.percentile(values, [0.2, 99.8]) if spec.smooth else (values.min(), values.max())
    scale = spec.scale if high > 0 and values.min() >= 0 else "linear"  # a hinge loss may be negative
    axes.set_yscale(scale)
    margin = 0.08 * ((high - low) or abs(high) or 1.0)
    if scale == "log":
        axes.set_ylim(max(low, high * 1e-4) / 1.15, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0 if spec.from_zero else low - margin, high + margin)
        axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel("step", color=_INK, fontsize=_FONT)
    _shade(axes, spans)
    return _svg(figure, axes, spec.title)


def _axes() -> tuple[Any, Any]:
    """An empty figure, and its axes."""
    from matplotlib.figure import Figure  # which takes a second to import; only pages need it

    figure = Figure(figsize=(6, 2.9), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, axes: Any, title: str) -> Markup:
    import matplotlib

    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.tick_params(which="both", colors=_INK, length=0, labelsize=_FONT)
    axes.spines[:].set_visible(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue(), title)


def _plot(axes: Any, curve: _Curve, style: CurveStyle, spec: ChartSpec) -> None:
    color = _CURVES[style.color]
    shown = spread(len(curve.steps), MOST_POINTS)
    steps, marker = curve.steps[shown], "o" if len(shown) <= _MOST_MARKED else ""
    line = {"color": color, "marker": marker, "markersize": 3.5, "linestyle": style.line, "solid_joinstyle": "round"}
    if spec.smooth and not marker:
        axes.plot(steps, curve.values[shown], color=color, linewidth=0.7, alpha=0.25)
        axes.plot(steps, curve.smoothed()[shown], linewidth=1.7, **line)
    else:
        axes.plot(steps, curve.values[shown], linewidth=1.7, **line)


def _shade(axes: Any, spans: Sequence[Span]) -> None:
    """Shade every second stage. Name each stage that is wide enough, above the chart or upright inside it."""
    end = max((span.last for span in spans), default=1)
    axes.set_xlim(0, max(end, 1) * 1.01)
    for i, span in enumerate(spans):
        if i % 2:
            axes.axvspan(span.first, span.last, color=_BAND, linewidth=0, zorder=0)
        share = (span.last - span.first) / end
        upright = share < 0.019 * len(span.name)
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
                fontsize=_STAGE_FONT,
                parse_math=False,
            )


def _inline(svg: str, title: str) -> Markup:
    """Turn matplotlib's file into an element of a page: without ids, which would clash, and without a fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = f'<svg {box[0]} role="img" aria-label="{escape(title)}">{svg[svg.index(">") + 1 :]}'
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # Narrow pages enlarge these. Versions of matplotlib write the size in two ways.
    for size, name in ((_FONT, "tick"), (_STAGE_FONT, "stage")):
        svg = re.sub(rf'<text (?=style="font(?:-size)?: {size}px)', f'<text class="{name}" ', svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Markup(svg)
