"""Charts of a run's metrics."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hdgan.reporting.chart_specs import CHARTS, LOSS_TITLES
from hdgan.reporting.charts import MOST_POINTS, Chart, Span, draw_charts, draw_spectra, smoothed, spread


def names_of(chart: Chart) -> list[str]:
    return [curve.name for curve in chart.curves]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_curves_without_positive_values(value):
    records = [{"step": step, "stage": "a", "g_gan": value} for step in (1, 2, 3)]
    (chart,) = draw_charts(records, [Span("a", 0, 3)])
    assert names_of(chart) == ["GAN"]


def test_every_chart_is_explained_and_has_an_axis():
    for spec in CHARTS:
        assert spec.note.endswith(".")
        assert re.search("no unit|without unit|in dB|in pixels|from -?[01] to|share", spec.note, re.IGNORECASE), (
            spec.title
        )
    (chart,) = draw_charts([{"step": 1, "stage": "a", "val_l1": 1.0}], [Span("a", 0, 1)], "A note.")
    assert chart.note.endswith("lower is better. A note.")
    assert ">step</text>" in chart.svg
    assert {'class="tick"', 'class="stage"'} <= set(re.findall('class="[a-z]+"', chart.svg))


def test_every_loss_has_a_color_of_its_own():
    record = {"step": 1, "stage": "a", **dict.fromkeys(LOSS_TITLES, 1.0)}
    for chart in draw_charts([record], [Span("a", 0, 1)]):
        assert len(set(re.findall(r"--curve-\d", chart.svg))) == len(chart.curves)


def test_all_features_are_drawn_and_told_apart() -> None:
    record = {"step": 1, "stage": "a", "l1_image": 1.0, **{f"l1_feature_{i}": 1.0 for i in range(1, 14)}}
    (chart,) = draw_charts([record, record | {"step": 2}], [Span("a", 0, 2)])
    assert names_of(chart) == ["image", *(f"feature {i}" for i in range(1, 14))]
    assert [(curve.color, curve.line) for curve in chart.curves[5:8]] == [(5, "solid"), (0, "dashed"), (1, "dashed")]
    assert len({(curve.color, curve.line) for curve in chart.curves}) == 14
    assert chart.svg.count("stroke-dasharray") == 8


def test_long_curves_are_thinned():
    values = np.random.default_rng(0).random(20_000)
    losses = {"g_gan": 0.5, "g_feature_matching": 4.0, "d_real": 0.25, "d_fake": 0.125}
    records = [{"step": i + 1, "stage": "global", **losses, "lr": value} for i, value in enumerate(values)]
    charts = {chart.title: chart for chart in draw_charts(records, [Span("global", 0, 20_000)])}
    assert list(charts) == ["Generator losses", "Discriminator losses", "Learning rate"]
    assert names_of(charts["Generator losses"]) == ["GAN", "feature matching"]
    paths = re.findall(r'<path d="([^"]*)"', charts["Learning rate"].svg)
    assert 500 < max(path.count("L") for path in paths) < MOST_POINTS


def test_spread_keeps_both_ends():
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 6).tolist() == [0, 20, 40, 60, 80, 100]
    assert spread(1, 6).tolist() == [0]
    chosen = spread(123_457, MOST_POINTS)
    assert (len(chosen), chosen[0], chosen[-1]) == (MOST_POINTS, 0, 123_456)


def test_smoothing_keeps_level_and_removes_noise():
    noise = np.random.default_rng(0).normal(3, 1, 2000)
    assert np.allclose(smoothed(np.full(200, 3.0)), 3)
    assert smoothed(noise).std() < 0.2
    assert len(smoothed(noise[:7])) == 7


def test_spectra_share_an_axis_and_each_has_a_curve():
    levels = {"generated": [-20, -30, -40], "photos": [-21, -29, -35]}
    chart = draw_spectra('a "run"', "note", [0.1, 0.3, 0.5], levels, (-60, -10))
    assert names_of(chart) == ["generated", "photos"]
    assert 'aria-label="a &#34;run&#34;"' in chart.svg
    assert {"--curve-0", "--curve-1"} == set(re.findall(r"--curve-\d", chart.svg))
    for label in ("\N{MINUS SIGN}60", "\N{MINUS SIGN}20", "0.2"):
        assert f">{label}</text>" in chart.svg
