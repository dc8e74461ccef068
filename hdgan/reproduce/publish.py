"""The output of the scored runs: their results, all rows, the image and the page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hdgan.checkpoints import find_checkpoint, list_steps
from hdgan.config.options import option
from hdgan.errors import ConfigError, DataError
from hdgan.evaluation.page import CLASSES, SCORES
from hdgan.families.saving import load_model
from hdgan.files import save_png
from hdgan.losses import fine_weights
from hdgan.metrics.scores import METRICS, ORACLE
from hdgan.models.segmenter import load_segmenter
from hdgan.reproduce.evidence import EVIDENCE, write_evidence
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.plan import NOISE, ROWS, SCORER, typed
from hdgan.reproduce.record import digest, load_record
from hdgan.reproduce.results import REAL, Requested, Result, read_results, save_requested, write_rows
from hdgan.reproduce.sheet import runs_sheet
from hdgan.wording import count

SAME_ORACLE = 1e-3
"""Difference in the scores of real photos that another device or number of threads may cause."""


def collect(run: Job) -> list[Result]:
    """The results of real photos and of a run, from what its training and its evaluation wrote."""
    scale, record = run.folder.scale, load_record(run.record)
    taken: dict[str, Any] = asdict(record) if record else {}
    taken |= taken.pop("machine", {})
    trained = {place: value for place, value in run.options.items() if not isinstance(value, Path)}
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
        "config": digest(" ".join([ROWS[run.name].preset, *typed(trained)]).encode()),
        "perceptual": run.perceptual,
        "network": run.folder.loss_network.name if run.compares_features else "",
        "scorer": run.folder.digest(SCORER),
        "scorer_features": sum(load_segmenter(run.folder.network(SCORER)).feature_channels),
    }
    scores = _scores(run.evaluation)
    real = Result(row=REAL, seed=None, **common, **scores[ORACLE])
    return [real, Result(row=run.name, seed=run.seed, **common, **scores[run.run.name])]


def _scores(evaluation: Path) -> dict[str, dict[str, Any]]:
    """Notes and metrics of each row of an evaluation, from scores.csv and classes.csv."""
    scores: dict[str, dict[str, Any]] = {}
    for line in _lines(evaluation / SCORES):
        metrics = {name: _number(line[name]) for name in METRICS}
        scores[line["run"]] = {"notes": line["notes"], "metrics": metrics}
    for line in _lines(evaluation / CLASSES):
        scores[line["run"]]["metrics"][f"iou_{line['class']}"] = _number(line["iou"])
    return scores


def _lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _number(text: str) -> float | None:
    return float(text) if text else None


def publish(folder: Folder, networks: Sequence[Job], runs: Sequence[Job], docs: Path) -> Path | None:
    """Write rows, image and page from the runs that are scored; None if none is.

    Raises:
        DataError: runs were scored differently.
    """
    rows = tuple(dict.fromkeys(run.name for run in runs))
    found = [results for row in ROWS for run in runs if run.name == row and (results := run.results())]
    if not found:
        return None
    _require_one_oracle(folder.root, found)
    results = [found[0][0], *(of_run for _, of_run in found)]
    file = docs / EVIDENCE / f"{folder.scale.name}.csv"
    for place in (folder.root / "results.csv", file):
        write_rows(place, results)
    records = {network.name: load_record(network.record) for network in networks}
    weights = fine_weights(folder.loss_network.n_features)
    seeds = max(run.seed for run in runs) + 1
    save_requested(file, Requested(rows, seeds, records, folder.scale.precision, NOISE, weights))
    shown = [Job(folder, of_run.row, 0) for _, of_run in found if of_run.seed == 0]
    save_png(runs_sheet(shown), file.with_suffix(".png"))
    return write_evidence(docs)


def _require_one_oracle(root: Path, found: Sequence[list[Result]]) -> None:
    """Raise DataError if one scorer saw different things in the same photos, since then the evaluation itself has
    changed."""
    oracles = {f"{of_run.row}-{of_run.seed}": real.metrics.get("miou") or 0.0 for real, of_run in found}
    lowest, highest = min(oracles, key=oracles.__getitem__), max(oracles, key=oracles.__getitem__)
    if oracles[highest] - oracles[lowest] > SAME_ORACLE:
        one, other = (f"{oracles[run]:.4f} beside {run}" for run in (lowest, highest))
        raise DataError(
            f"the evaluation changed between runs: real photos have a mean IoU of {one} and of {other}; delete "
            f"{root / 'runs'}/*/result.json to have all runs scored again"
        )


def require_no_more(file: Path, runs: int) -> None:
    """Make sure that evidence is not replaced by fewer runs. Rows that this version cannot read may be replaced.

    Raises:
        ConfigError: the file holds more runs.
    """
    try:
        found = sum(result.row != REAL for result in read_results(file)) if file.is_file() else 0
    except DataError:
        return
    if found > runs:
        raise ConfigError(
            f"{file} contains {count(found, 'run')}, which {runs} would replace: choose another {option('docs')}, or "
            f"more {option('seeds')}"
        )
