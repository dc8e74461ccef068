"""Three seeds decide what they can, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from hdgan.reproduce.plan import TABLES
from hdgan.reproduce.results import REAL, Result
from hdgan.reproduce.verdicts import PairTest, Verdict, verdicts_of

MadeResults = Callable[[Mapping[str, list[float]]], list[Result]]
METHODS = next(table for table in TABLES if "crn" in table.rows)
FEATURES = next(table for table in TABLES if "features" in table.rows)


def pair(*differences: float) -> PairTest:
    return PairTest("pix2pixhd", "crn", True, differences)


@pytest.mark.parametrize(
    ("differences", "conclusion"),
    [
        ((0.10, 0.11, 0.12), "supported"),
        ((-0.10, -0.11, -0.12), "reversed"),
        ((0.001, 0.002, -0.001), "not decided"),
        ((0.01, 0.30, 0.02), "not decided"),
        ((0.4,), "not decided"),
        ((0.1, 0.1, 0.1), "not decided"),
        ((0.0, 0.0), "not decided"),
        ((*[0.1, 0.11, 0.12] * 5, -0.001), "not decided"),
    ],
)
def test_a_pair_is_decided_by_significance_and_by_every_seed(differences: tuple[float, ...], conclusion: str) -> None:
    assert pair(*differences).conclusion == conclusion


def test_a_pair_tells_its_test() -> None:
    tested = pair(0.10, 0.11, 0.12)
    assert tested.p == pytest.approx(0.0027, abs=1e-4)
    assert tested.text == (
        "pix2pixHD > CRN: **supported**; difference +0.110 ± 0.010, above 0 in 3 of 3 seeds, p = 0.0027"
    )
    assert pair(-0.4).text == "pix2pixHD > CRN: **not decided by 1 seed**; difference -0.400"


def test_p_shows_on_which_side_of_the_bound_it_is() -> None:
    assert pair(0.0583, 0.137, 0.099).text.endswith("above 0 in 3 of 3 seeds, p = 0.04969")
    assert pair(0.058, 0.137, 0.0987).text.endswith("above 0 in 3 of 3 seeds, p = 0.05")


def verdict(made: MadeResults, **scores: list[float]) -> Verdict:
    (found,) = verdicts_of(METHODS, made(scores))
    return found


def test_an_order_is_supported_if_all_its_pairs_are(made: MadeResults) -> None:
    found = verdict(made, pix2pix=[0.3, 0.31, 0.32], crn=[0.4, 0.42, 0.41], pix2pixhd=[0.5, 0.51, 0.53])
    assert found.conclusion == "supported"
    assert found.text == (
        "pix2pixHD > CRN > pix2pix in mean IoU: **supported**. Means of 3 seeds: pix2pixHD 0.513, CRN 0.410, "
        "pix2pix 0.310."
    )
    assert [one.order for one in found.pairs] == ["pix2pixHD > CRN", "pix2pixHD > pix2pix", "CRN > pix2pix"]
    assert [one.claimed for one in found.pairs] == [True, True, False]


def test_an_order_is_reversed_if_a_pair_is(made: MadeResults) -> None:
    found = verdict(made, pix2pix=[0.3, 0.31, 0.32], crn=[0.7, 0.72, 0.71], pix2pixhd=[0.5, 0.51, 0.53])
    assert found.conclusion == "reversed"
    assert "**reversed** in 1 of 3 pairs (CRN > pix2pixHD). Means" in found.text


def test_an_order_with_an_open_pair_is_not_decided(made: MadeResults) -> None:
    found = verdict(made, pix2pix=[0.3, 0.31, 0.32], crn=[0.5, 0.51, 0.53], pix2pixhd=[0.501, 0.52, 0.529])
    assert found.conclusion == "not decided"
    assert "**not decided by 3 seeds**. Means of 3 seeds" in found.text


def test_only_seeds_that_all_rows_have_are_compared(made: MadeResults) -> None:
    found = verdict(made, pix2pix=[0.3], crn=[0.4, 0.9], pix2pixhd=[0.5, 0.1])
    assert found.seeds == 1
    assert found.means == {"pix2pixhd": 0.5, "crn": 0.4, "pix2pix": 0.3}
    assert found.conclusion == "not decided"
    assert verdicts_of(METHODS, made({"crn": [0.4], "pix2pixhd": [0.5]})) == []
    assert verdicts_of(FEATURES, made({"features": [0.4], "pix2pixhd": [0.5]})) == []


def test_boundaries_are_tested_by_edges_as_well(made: MadeResults) -> None:
    (table,) = (table for table in TABLES if "no-instances" in table.rows)
    rows = made({"pix2pixhd": [0.5, 0.5, 0.5], "no-instances": [0.5, 0.6, 0.4]})
    assert [found.metric for found in verdicts_of(table, rows)] == ["miou"]
    edges = {"pix2pixhd": (0.5, 0.6, 0.7), "no-instances": (0.1, 0.21, 0.3), REAL: (None,)}
    rows = [replace(one, metrics=one.metrics | {"instance_edges": edges[one.row][one.seed or 0]}) for one in rows]
    recognition, drawn = verdicts_of(table, rows)
    assert (recognition.conclusion, drawn.conclusion) == ("not decided", "supported")
    assert "pix2pixHD > without instance boundaries in instance edges: **supported**. Means" in drawn.text
    assert drawn.pairs[0].text.startswith("pix2pixHD > without instance boundaries in instance edges: **supported**; ")
