"""Measures of styles on the built-in scenes, where the true style of every instance is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score

from hdgan.config.bounds import Positive
from hdgan.config.serialization import check_value, from_plain
from hdgan.data import PairedDataset, make_loader
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families.common.batch import Batch
from hdgan.files.json import read_json
from hdgan.inference.encoding import TrainedModel
from hdgan.inference.pipeline import Pipeline
from hdgan.ops import instance_reduce
from hdgan.scenes import STYLES
from hdgan.styles.bank import StyleBank
from hdgan.styles.cluster import assign
from hdgan.styles.table import FeatureTable


@dataclass(frozen=True)
class Agreement:
    """How well the clusters of a class agree with its true styles."""

    label: int
    instances: int
    styles: int
    """Number of true styles."""
    matched: float
    """Normalised mutual information of the true styles and as many clusters of E's features."""
    colours: float
    """The same for clusters of the photo's mean colours, the baseline for E."""
    clustered: float
    """Normalised mutual information of the true styles and the clusters of the bank. It is lower if there are more
    clusters than styles: ten pure clusters of one size for four styles have 2 ln 4 / (ln 4 + ln 10) = 0.75."""


@dataclass(frozen=True)
class Change:
    """The change of an image when the cluster of one instance is switched: the mean over switches, in levels of 8
    bits."""

    label: int
    switches: int
    inside: float
    """Mean absolute difference on the instance."""
    outside: float
    """The same on all other pixels."""


def measure_agreement(
    trained: TrainedModel, table: FeatureTable, bank: StyleBank, min_area: float, seed: int = 0
) -> list[Agreement]:
    """Compare clusters with true styles over the training instances that are large enough.

    Classes with fewer than two instances per true style are left out, since few instances agree with any clustering.

    Args:
        trained: a run on the built-in scenes.
        table: its features.
        bank: its clusters.
        min_area: instances that cover a smaller share of their image are left out.
        seed: of K-means.

    Raises:
        ConfigError: the run was trained on other data.
        CheckpointError: the table is of other images.
    """
    truth, colours = true_styles(trained, table), mean_colours(trained)
    if len(colours) != len(table):
        raise CheckpointError(
            f"{trained.table_file} has {len(table)} instances, but the run's images have {len(colours)}: encode them "
            "again with `hdgan styles encode`, without --width"
        )
    found = []
    for label, clusters in sorted(bank.clusters.items()):
        rows = np.flatnonzero((table.label == label) & (table.share >= min_area) & (truth != ""))
        features, n_styles = table.feature[rows], len(STYLES[label])
        if len(rows) < 2 * n_styles:
            continue
        centres = np.stack([cluster.centre for cluster in clusters])
        nearest = np.linalg.norm(features[:, None] - centres, axis=2).argmin(1)
        matched, by_colour = (assign(values, n_styles, seed)[0] for values in (features, colours[rows]))
        scores = [float(normalized_mutual_info_score(truth[rows], which)) for which in (matched, by_colour, nearest)]
        found.append(Agreement(label, len(rows), n_styles, *scores))
    return found


def measure_changes(
    pipeline: Pipeline, dataset: PairedDataset, count: int, min_area: float, seed: int = 0
) -> list[Change]:
    """Switch one instance at a time to another cluster of its class and measure where the image changes.

    The other instances keep the clusters that were drawn for them. An instance that fills its image is left out, since
    it has no outside. The seed determines the samples, instances and clusters that are drawn.

    Args:
        pipeline: with a bank.
        dataset: whose maps are used.
        count: switches of each class.
        min_area: instances that cover a smaller share of their image are left out.
        seed: 0 or more.

    Raises:
        ConfigError: count is below 1.
    """
    check_value(Positive, count, "switches")
    rng = np.random.default_rng(seed)
    candidates: dict[int, list[tuple[int, int]]] = {}
    for index in range(len(dataset)):
        label, ids = _maps(dataset, index)
        for id, of in pipeline.instances(label, ids).items():
            if len(pipeline.bank.clusters.get(of, ())) > 1 and min_area <= (ids == id).mean() < 1:
                candidates.setdefault(of, []).append((index, id))
    return [_change(pipeline, dataset, of, candidates[of], count, rng) for of in sorted(candidates)]


def true_styles(trained: TrainedModel, table: FeatureTable) -> np.ndarray:
    """Name of each instance's true style, [N]; empty if the scene does not define one."""
    if trained.config.data.root is not None:
        raise ConfigError(
            f"{trained.file} was trained on {trained.config.data.root}: only the built-in scenes have true styles"
        )
    assert trained.data.config.root is not None
    folder = trained.data.config.root / f"{trained.config.data.train_phase}_style"
    known = [_styles_in(folder / f"{stem}.json") for stem in table.stem.tolist()]
    return np.array([known[picture].get(id, "") for picture, id in zip(table.picture, table.id.tolist(), strict=True)])


def mean_colours(trained: TrainedModel) -> np.ndarray:
    """Mean colour of every training instance, [N, 3] in [-1, 1], in the order of the table."""
    dataset = trained.dataset
    loader = make_loader(dataset, stop=len(dataset), shuffle=False, workers=trained.config.data.workers)
    batches = (Batch.from_loader(sample, trained.pipeline.device, torch.contiguous_format) for sample in loader)
    return np.concatenate([instance_reduce(one.photo, one.instances()).cpu().numpy() for one in batches])


@dataclass(frozen=True)
class _TrueStyle:
    id: int
    style: str


def _styles_in(file: Path) -> dict[int, str]:
    """The true style of each instance by its id, from the scene's file."""
    content, where = (
        read_json(file, dict, "delete the folder of the scenes; they will be drawn again"),
        f"{file}, instances",
    )
    entries = from_plain(list[dict[str, Any]], content.get("instances"), where)
    known = [{"id": entry.get("id"), "style": entry.get("style")} for entry in entries]
    return {one.id: one.style for one in from_plain(list[_TrueStyle], known, where)}


def _maps(dataset: PairedDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    sample = dataset[index]
    return sample["label"].numpy(), sample["ids"].numpy()


def _change(
    pipeline: Pipeline,
    dataset: PairedDataset,
    of: int,
    candidates: list[tuple[int, int]],
    count: int,
    rng: np.random.Generator,
) -> Change:
    differences = []
    for _ in range(count):
        index, id = candidates[int(rng.integers(len(candidates)))]
        label, ids = _maps(dataset, index)
        styles = pipeline.bank.sample(pipeline.instances(label, ids), seed=int(rng.integers(2**31)))
        others = [k for k in range(len(pipeline.bank.clusters[of])) if k != styles.instances[id].cluster]
        switched = styles.with_style(id, pipeline.bank.style(of, others[int(rng.integers(len(others)))]))
        before, after = (pipeline(label, ids, styles=one).cpu().numpy() for one in (styles, switched))
        difference = np.abs(after - before).mean(0) * 255  # [H, W]
        inside = ids == id
        differences.append((difference[inside].mean(), difference[~inside].mean()))
    means = np.mean(differences, axis=0)
    return Change(of, count, float(means[0]), float(means[1]))
