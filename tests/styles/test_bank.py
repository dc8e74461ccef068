"""The bank keeps its clusters and draws from them; the same seed gives the same styles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from hdgan.errors import CheckpointError, ConfigError
from hdgan.styles import Cluster, Example, StyleBank
from hdgan.styles.bank import with_thumbnails
from hdgan.styles.table import Origin

EXAMPLES = (Example("a", 5001, (0.1, 0.2, 0.3, 0.4)), Example("b", -2, (0, 0, 1, 1)))


def make_bank() -> StyleBank:
    """Classes 3 and 5 have clusters, 7 only a mean."""
    clusters = {
        5: tuple(Cluster(np.array([k, 0.5], np.float32), 10 - k, EXAMPLES) for k in range(4)),
        3: (Cluster(np.array([0, -1], np.float32), 2, EXAMPLES[1:]),),
    }
    means = {label: np.array([label, 0.25], np.float32) for label in (3, 5, 7)}
    return StyleBank(clusters, means, np.array([9, 9], np.float32), Origin("e" * 16, "step-9 of run"))


def assert_equal(first: StyleBank, second: StyleBank) -> None:
    assert first.origin == second.origin
    assert first.clusters.keys() == second.clusters.keys()
    assert first.means.keys() == second.means.keys()
    np.testing.assert_array_equal(first.overall, second.overall)
    for label, mean in first.means.items():
        np.testing.assert_array_equal(mean, second.means[label])
    for label, there in first.clusters.items():
        for one, other in zip(there, second.clusters[label], strict=True):
            np.testing.assert_array_equal(one.centre, other.centre)
            assert (one.count, one.examples) == (other.count, other.examples)
            assert (one.thumbnail is None) == (other.thumbnail is None)
            if one.thumbnail is not None:
                np.testing.assert_array_equal(np.asarray(one.thumbnail), np.asarray(other.thumbnail))


def test_a_bank_comes_back_as_it_was(tmp_path: Path) -> None:
    bank = make_bank()
    bank.save(tmp_path / "bank.safetensors")
    assert_equal(StyleBank.load(tmp_path / "bank.safetensors"), bank)
    pictures = {example: Image.new("RGB", (4, 4), (k, 2, 3)) for k, example in enumerate(EXAMPLES)}
    bank = with_thumbnails(bank, pictures)
    bank.save(tmp_path / "bank.safetensors")
    again = StyleBank.load(tmp_path / "bank.safetensors")
    assert_equal(again, bank)
    assert again.clusters[3][0].thumbnail.getpixel((0, 0)) == (1, 2, 3)  # type: ignore[union-attr]
    unknown = StyleBank({1: (Cluster(np.zeros(2, np.float32)),)}, {}, np.zeros(2, np.float32))
    unknown.save(tmp_path / "bank.safetensors")
    assert_equal(StyleBank.load(tmp_path / "bank.safetensors"), unknown)


def test_the_same_seed_gives_the_same_styles() -> None:
    bank = make_bank()
    instances = {5000 + k: 5 for k in range(40)} | {3: 3}
    first = bank.sample(instances, seed=7)
    assert first == bank.sample(instances, seed=7)
    assert first.encoder == "e" * 16
    assert first != bank.sample(instances, seed=8)
    assert first != bank.sample(instances, seed=7, variant=1)
    assert bank.sample(instances, seed=8) != bank.sample(instances, seed=7, variant=1)
    drawn = Counter(style.cluster for style in first.instances.values() if style.label == 5)
    assert drawn.keys() == {0, 1, 2, 3}
    assert all(
        first.instances[id] == bank.style(5, style.cluster or 0) for id, style in first.instances.items() if id > 3
    )


def test_an_instance_keeps_its_style_when_others_are_added() -> None:
    bank = make_bank()
    few = bank.sample({5001: 5, 5002: 5}, seed=1)
    many = bank.sample({5000: 5, 5001: 5, 5002: 5, 3: 3, -4: 5}, seed=1)
    assert {id: many.instances[id] for id in few.instances} == few.instances


def test_a_style_for_each_class() -> None:
    bank = make_bank()
    instances = {5000 + k: 5 for k in range(20)}
    found = {
        frozenset(s.cluster for s in bank.sample(instances, seed, per="class").instances.values()) for seed in range(9)
    }
    assert all(len(clusters) == 1 for clusters in found)
    assert len(found) > 1


def test_classes_without_clusters_have_a_mean() -> None:
    styles = make_bank().sample({7: 7, 11: 11, 255: 255})
    assert styles.instances[7].feature == (7, 0.25)
    assert styles.instances[11].feature == styles.instances[255].feature == (9, 9)
    assert {style.cluster for style in styles.instances.values()} == {None}


def test_clusters_that_are_not_there_are_named() -> None:
    bank = make_bank()
    for cluster in (4, -1):
        with pytest.raises(ConfigError, match=f"class 5 has no cluster {cluster}: it has 0 to 3"):
            bank.style(5, cluster)
    with pytest.raises(ConfigError, match=r"class 7 has no cluster 0: it has none; classes with clusters are \[3, 5\]"):
        bank.style(7, 0)
    with pytest.raises(ConfigError, match="seed is -1"):
        bank.sample({}, seed=-1)


def test_a_bank_knows_its_model() -> None:
    bank = make_bank()
    bank.require("e" * 16, 2, "x.safetensors")
    replace(bank, origin=Origin()).require("f" * 16, 2, "x.safetensors")
    with pytest.raises(
        CheckpointError, match=r"made with step-9 of run \(encoder e{16}\), but x\.safetensors has encoder f"
    ):
        bank.require("f" * 16, 2, "x.safetensors")
    with pytest.raises(CheckpointError, match=r"have 2 features, but x\.safetensors has 3"):
        bank.require("e" * 16, 3, "x.safetensors")


def test_damaged_banks_are_named(tmp_path: Path) -> None:
    file = tmp_path / "bank.safetensors"
    with pytest.raises(CheckpointError, match=r"does not exist: .*hdgan styles encode RUN.*hdgan styles cluster RUN"):
        StyleBank.load(file)
    make_bank().save(file)
    whole, arrays = file.read_bytes(), load_file(file)
    with safe_open(file, framework="numpy") as opened:
        about = opened.metadata()["hdgan"]
    for damaged in (b"", b"nonsense" * 9, whole[:-5]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"is not a readable safetensors file .*hdgan styles cluster RUN"):
            StyleBank.load(file)
    save_file(arrays, file)
    with pytest.raises(CheckpointError, match="is damaged"):
        StyleBank.load(file)
    wrong = {
        "mean": arrays | {"mean": arrays["mean"][:1]},
        "centre": arrays | {"centre": arrays["centre"] * np.float32("nan")},
        "overall": {name: array for name, array in arrays.items() if name != "overall"},
        "centre, mean": arrays | {"overall": np.array(3, np.float32)},
        "thumbnail": arrays | {"thumbnail": np.zeros((5, 2, 2, 4), np.uint8)},
    }
    for name, content in wrong.items():
        save_file(content, file, {"hdgan": about})
        with pytest.raises(CheckpointError, match=f"is damaged \\(.*{name}.* do not fit"):
            StyleBank.load(file)
    save_file(arrays | {"mean": arrays["mean"].astype(np.float64)}, file, {"hdgan": about})
    with pytest.raises(CheckpointError, match=r"is damaged \(mean: wrong type\)"):
        StyleBank.load(file)
    for damaged, says in (
        ("[" * 50_000, "nested too deeply"),
        (about.replace('"counts": [2', '"counts": [-2'), "counts"),
    ):
        save_file(arrays, file, {"hdgan": damaged})
        with pytest.raises(CheckpointError, match=says):
            StyleBank.load(file)
    save_file(arrays, file, {"hdgan": about.replace('"format": 1', '"format": 2')})
    with pytest.raises(CheckpointError, match="has format 2, but this hdgan reads formats up to 1: upgrade hdgan"):
        StyleBank.load(file)
