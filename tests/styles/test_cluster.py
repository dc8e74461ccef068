"""K-means finds what is there, the same every time, and no more clusters than instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from hdgan.errors import ConfigError, DataError
from hdgan.styles.cluster import assign, cluster
from hdgan.styles.table import FeatureTable

MakeTable = Callable[..., FeatureTable]


def groups(counts: dict[tuple[float, float], int]) -> list[list[float]]:
    rng = np.random.default_rng(0)
    return [[x + rng.normal(0, 0.01), y + rng.normal(0, 0.01)] for (x, y), n in counts.items() for _ in range(n)]


def test_groups_are_found_the_largest_first(make_table: MakeTable) -> None:
    table = make_table({5: groups({(0, 0): 4, (1, 1): 9, (-1, 1): 6})})
    (there,) = cluster(table, 3).clusters.values()
    assert [entry.count for entry in there] == [9, 6, 4]
    centres = np.array([entry.centre for entry in there])
    np.testing.assert_allclose(centres, [[1, 1], [-1, 1], [0, 0]], atol=0.02)
    assert centres.dtype == np.float32
    first = there[0].examples[0]
    assert first.box == (0.1, 0.2, 0.6, 1.0)
    members = {f"picture{k}" for k in range(4, 13)}
    assert {example.stem for example in there[0].examples} == members
    distances = {f"picture{k}": np.linalg.norm(table.feature[k] - there[0].centre) for k in range(4, 13)}
    assert [example.stem for example in there[0].examples] == sorted(members, key=lambda stem: distances[stem])


def test_the_same_seed_gives_the_same_clusters(make_table: MakeTable) -> None:
    rng = np.random.default_rng(1)
    table = make_table({1: rng.normal(size=(60, 3)).tolist(), 2: rng.normal(size=(40, 3)).tolist()})
    first, again, other = cluster(table, 7, seed=3), cluster(table, 7, seed=3), cluster(table, 7, seed=4)
    assert first.clusters.keys() == {1, 2}

    def centres(bank: object) -> np.ndarray:
        return np.array([entry.centre for there in bank.clusters.values() for entry in there])  # type: ignore[attr-defined]

    np.testing.assert_array_equal(centres(first), centres(again))
    assert not np.array_equal(centres(first), centres(other))


def test_fewer_instances_have_fewer_clusters(make_table: MakeTable) -> None:
    table = make_table({0: [[0.5, 0.5]], 1: [[0, 0], [0, 0], [1, 1]], 2: groups({(0, 0): 5, (1, 0): 7})})
    bank = cluster(table, 10)
    assert {label: len(there) for label, there in bank.clusters.items()} == {0: 1, 1: 2, 2: 10}
    assert bank.clusters[1][0].count == 2
    assert bank.clusters[0][0].centre.tolist() == [0.5, 0.5]


def test_features_that_differ_by_rounding_are_one_style(make_table: MakeTable) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):  # K-means itself leaves clusters empty here
        looks = rng.uniform(-1, 1, (3, 3)).astype(np.float32)
        rows = np.repeat(looks, [6, 2, 1], 0)
        for row in rows[:6]:
            row[rng.integers(3)] *= 1 + np.float32(2**-23) * rng.integers(4)
        (there,) = cluster(make_table({2: rows.tolist()})).clusters.values()
        assert [entry.count for entry in there] == [6, 2, 1]
        assert all(entry.examples for entry in there)


def test_no_cluster_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdgan.styles.cluster._DECIMALS", 12)  # all rows count as different
    base = np.random.default_rng(3).uniform(-1, 1, 3)
    features = np.array([base + 1e-10 * k for k in range(8)] + [base + 1])
    with pytest.warns(ConvergenceWarning):
        which, centres = assign(features, 9, 0)
    assert np.bincount(which, minlength=len(centres)).min() > 0
    np.testing.assert_allclose(centres[which[-1]], base + 1, rtol=1e-6)


def test_small_instances_count_for_the_mean_only(make_table: MakeTable) -> None:
    table = make_table({3: [[0, 0], [1, 0], [2, 0]], 4: [[0, 8]]})
    table = replace(table, area=np.array([50, 50, 4, 4]))
    bank = cluster(table, 10, min_area=0.05)
    assert bank.clusters.keys() == {3}
    assert [entry.centre[0] for entry in bank.clusters[3]] == [0, 1]
    assert bank.means[3].tolist() == [1, 0]
    assert bank.means[4].tolist() == [0, 8]
    assert bank.overall.tolist() == [0.75, 2]
    assert cluster(table, 10, min_area=0.04).clusters.keys() == {3, 4}


def test_instances_of_no_class_are_left_out(make_table: MakeTable) -> None:
    table = make_table({0: [[1, 1]], 255: [[5, 5]]})
    bank = cluster(table, dontcare=255)
    assert bank.clusters.keys() == bank.means.keys() == {0}
    assert bank.overall.tolist() == [1, 1]


def test_what_cannot_be_clustered_is_said(make_table: MakeTable) -> None:
    table = make_table({0: [[1, 1]]})
    for options, complaint in (
        ({"k": 0}, "k is 0: give a whole number from 1"),
        ({"k": -3}, "k is -3"),
        ({"min_area": 1.0}, r"min_area is 1\.0"),
        ({"min_area": -0.1}, r"min_area is -0\.1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            cluster(table, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no instance of 1 image covers min_area 0\.6"):
        cluster(table, min_area=0.6)


def test_assign_numbers_as_the_centres_do() -> None:
    features = np.array(groups({(0, 0): 3, (1, 1): 8}), np.float32)
    which, centres = assign(features, 2, 0)
    assert which.tolist() == [1] * 3 + [0] * 8
    np.testing.assert_allclose(centres, [[1, 1], [0, 0]], atol=0.02)
