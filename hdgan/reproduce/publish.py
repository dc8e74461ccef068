"""The output of the scored runs: their results, all rows, strips of images and the page."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hdgan.checkpoints import find_checkpoint, list_steps
from hdgan.config.options import option
from hdgan.errors import DataError
from hdgan.evaluation.page import CLASSES, FORMER_CLASSES, SCORES
from hdgan.families.saving import load_model
from hdgan.losses import fine_weights
from hdgan.metrics.scores import METRICS, ORACLE
from hdgan.models.segmenter import load_segmenter
from hdgan.reproduce.evidence import EVIDENCE, write_evidence
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.kept import KeptRows, Run, copy_network, network_beside
from hdgan.reproduce.plan import NOISE, ROWS, SCORER
from hdgan.reproduce.record import load_record
from hdgan.reproduce.results import REAL, Requested, Result, save_requested, write_rows
from hdgan.reproduce.strips import write_strips

SAME_ORACLE = 1e-3
"""Difference in the scores of real photos that another device or number of threads may cause."""


def collect(run: Job) -> list[Result]:
    """The results of real photos and of a run, from what its training and its evaluation wrote."""
    scale, record = run.folder.scale, load_record(run.record)
    taken: dict[str, Any] = asdict(record) if record else {}
    taken |= taken.pop("machine", {})
    model, _ = load_model(find_checkpoint(run.run))
    common = taken | {
        "scale": scale.name,
        "width": scale.width,
        "height": scale.height,
        "train_scenes": scale.train,
        "held_out": scale.test,
        "images": scale.images,
        "steps": list_steps(run.run)[-1],
        "parameters": sum(parameter.numel() for parameter in model.generator.parameters()),
        "torch": torch.__version__,
        "hdgan": version("hdgan"),
        "config": run.digest_of_options,
        "perceptual": run.perceptual,
        "network": run.folder.loss_network.name if run.compares_features else "",
        "scorer": run.folder.digest(SCORER),
        "scorer_features": sum(load_segmenter(run.folder.network(SCORER)).feature_channels),
    }
    scores = _scores(run.evaluation)
    real = Result(row=REAL, seed=None, **common, **scores[ORACLE])
    return [real, Result(row=run.name, seed=run.seed, **common, **scores[run.run.name])]


def _scores(evaluation: Path) -> dict[str, dict[str, Any]]:
    """Notes and metrics of each row of an evaluation, from scores.csv and class_scores.csv."""
    scores: dict[str, dict[str, Any]] = {}
    for line in _lines(evaluation / SCORES):
        metrics = {name: _number(line[name]) for name in METRICS}
        scores[line["run"]] = {"notes": line["notes"], "metrics": metrics}
    classes = evaluation / CLASSES
    for line in _lines(classes if classes.exists() else evaluation / FORMER_CLASSES):
        scores[line["run"]]["metrics"][f"iou_{line['class']}"] = _number(line["iou"])
    return scores


def _lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _number(text: str) -> float | None:
    return float(text) if text else None


def publish(folder: Folder, networks: Sequence[Job], runs: Sequence[Job], docs: Path, kept: KeptRows) -> Path | None:
    """Write rows, images and page from the runs that are scored and from kept rows; None if there are neither.

    The networks are copied to the rows, so that another machine can go on with them.

    Raises:
        DataError: runs were scored differently.
    """
    own = {(run.name, run.seed): results for run in runs if (results := run.results())}
    taken = {run: [kept.real, result] for run, result in kept.results.items() if kept.real and run not in own}
    every = own | taken
    found = [every[run] for run in sorted(every, key=lambda run: (list(ROWS).index(run[0]), run[1]))]
    if not found:
        return None
    _require_one_oracle(folder.root, found)
    results = [found[0][0], *(of_run for _, of_run in found)]
    file = docs / EVIDENCE / f"{folder.scale.name}.csv"
    for place in (folder.root / "results.csv", file):
        write_rows(place, results)
    for network in filter(Job.is_done, networks):
        copy_network(folder.network(network.name), network_beside(file, network.name))
    save_requested(file, _requested(folder, networks, runs, taken))
    jobs = {(run.name, run.seed): run for run in runs}
    write_strips(file.with_suffix(""), {run: jobs[run] for run in own}, taken)
    return write_evidence(docs)


def _requested(folder: Folder, networks: Sequence[Job], runs: Sequence[Job], taken: Collection[Run]) -> Requested:
    """What the page is about: as many runs of each row as this call asked for, of its rows and of those that were
    taken."""
    names = {run.name for run in runs} | {name for name, _ in taken}
    return Requested(
        rows=tuple(row for row in ROWS if row in names),
        seeds=max(run.seed for run in runs) + 1,
        networks={network.name: load_record(network.record) for network in networks},
        precision=folder.scale.precision,
        noise=NOISE,
        feature_weights=fine_weights(folder.loss_network.n_features),
        taken=len(taken),
    )


def _require_one_oracle(root: Path, found: Sequence[list[Result]]) -> None:
    """Raise DataError if one scorer saw different things in the same photos, since then the evaluation itself has
    changed."""
    oracles = {f"{of_run.row}-{of_run.seed}": real.metrics.get("miou") or 0.0 for real, of_run in found}
    lowest, highest = min(oracles, key=oracles.__getitem__), max(oracles, key=oracles.__getitem__)
    if oracles[highest] - oracles[lowest] > SAME_ORACLE:
        one, other = (f"{oracles[run]:.4f} beside {run}" for run in (lowest, highest))
        raise DataError(
            f"the evaluation changed between runs: real photos have a mean IoU of {one} and of {other}; delete "
            f"{root / 'runs'}/*/result.json to have all runs scored again, and give {option('again')} if some are only "
            "rows"
        )
