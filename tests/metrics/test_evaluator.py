"""The evaluator: which metrics a row has, and why some are missing."""

from __future__ import annotations

import torch

from hdgan.metrics.evaluator import Evaluator
from hdgan.metrics.feature_networks import FeatureNetworks
from hdgan.metrics.scores import METRICS, SPECTRAL


def evaluator(*names: str, n_labels: int = 0) -> Evaluator:
    networks = FeatureNetworks(None, torch.device("cpu"))
    return Evaluator(names, count=2, scorer=None, n_labels=n_labels, dontcare=None, networks=networks)


def test_a_row_has_the_metrics_of_its_spectra() -> None:
    torch.manual_seed(0)
    row = evaluator("psnr", *SPECTRAL)
    for _ in range(2):
        row.add(row.measure(torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80), None)[0])
    scores = row.scores("a")
    assert tuple(scores.metrics) == METRICS
    assert scores.spectra is not None
    assert scores.metrics["spectrum"] == scores.spectra.distance > 0
    assert scores.metrics["pattern"] == scores.spectra.strongest


def test_spectra_are_measured_only_where_they_are_asked_for() -> None:
    row = evaluator("psnr")
    row.add(row.measure(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), None)[0])
    scores = row.scores("a")
    assert (scores.spectra, scores.metrics["spectrum"]) == (None, None)
    assert "spectrum" not in scores.notes


def test_an_image_smaller_than_a_tile_ends_the_spectra() -> None:
    row = evaluator("psnr", *SPECTRAL)
    for height in (64, 63, 64):
        row.add(row.measure(torch.rand(1, 3, height, 64), torch.rand(1, 3, height, 64), None)[0])
    scores = row.scores("a")
    assert scores.metrics["psnr"] is not None
    for name in SPECTRAL:
        assert scores.metrics[name] is None
        assert scores.notes[name] == "its tiles need images of at least 64 pixels per side"


def test_instance_edges_need_both_maps_and_touching_objects() -> None:
    torch.manual_seed(0)
    image, label = torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
    ids = torch.zeros(1, 16, 16, dtype=torch.int32)
    ids[..., 8:] = 1
    photo = ids[:, None].expand(1, 3, 16, 16) * 0.5
    found = {}
    for name, n_labels, maps in (
        ("both", 1, (label, ids)), ("apart", 1, (label, label)), ("no ids", 1, (label, None)),
        ("A to B", 0, (None, None)),
    ):  # fmt: skip
        row = evaluator("instance_edges", n_labels=n_labels)
        row.add(row.measure(image, photo, *maps)[0])
        scores = row.scores(name)
        found[name] = scores.notes.get("instance_edges") or scores.metrics["instance_edges"]
    assert isinstance(found.pop("both"), float)
    assert found == {
        "apart": "no objects of one class touch, or not even the photos show edges between them",
        "no ids": "no instance maps",
        "A to B": "no labels",
    }
