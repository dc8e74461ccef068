"""Raw results: JSON for each run in its folder, and a CSV of all of them, with a JSON file next to it of what was
requested."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from hdgan.config.bounds import Count, Noise, Seed, Side, Variants, Weight
from hdgan.config.serialization import from_plain
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.files import leads_out
from hdgan.files.csv import read_csv, write_csv
from hdgan.files.json import read_json, write_json
from hdgan.metrics.scores import METRICS
from hdgan.reproduce.perceptual import TWIN, PerceptualNetwork
from hdgan.reproduce.record import Record, Seconds, check_times

Parameters = Annotated[int, Interval(ge=0, le=10**15)]
Score = Annotated[float, Interval(ge=-(10**9), le=10**9)]
REAL = "real"
"""The row of real photos, the oracle; it has no seed."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores of one run, and what they were measured with."""

    scale: str
    row: str
    seed: Seed | None
    """None for real photos."""
    width: Side
    height: Side
    train_scenes: Count
    held_out: Count
    """Number of scored images."""
    images: Count
    """Training images that the run saw."""
    steps: Count
    parameters: Parameters
    """Parameters of the generator."""
    began: str = ""
    """This field and those up to jobs are copied from the run's `Record`; empty without one."""
    ended: str = ""
    seconds: Seconds | None = None
    cpu_seconds: Seconds | None = None
    device: str = ""
    cores: Count | None = None
    threads: Count | None = None
    jobs: Count | None = None
    torch: str
    """The version of PyTorch that scored the run, as the next field is the version of hdgan."""
    hdgan: str
    config: str
    """Digest of the preset and options that were trained, without paths and machine."""
    perceptual: str
    """Digest of the network whose features the perceptual loss compares; empty without that loss. The field network has
    its name."""
    scorer: str
    """Digest of the scorer."""
    scorer_features: Count
    """Channels of the scorer's features, which its FID is computed from."""
    notes: str
    """Metrics that are not available, and why."""
    network: str = ""
    """Name of the perceptual network, as in `PerceptualNetwork`; empty without one, and in files of older versions,
    which always used the twin."""
    metrics: dict[str, Score | None]

    def __post_init__(self) -> None:
        if leads_out(self.scale):
            raise ConfigError(f"scale is {self.scale!r:.60}: give the name of a scale")
        check_times(self.began, self.ended)

    @property
    def perceptual_network(self) -> PerceptualNetwork | None:
        return PerceptualNetwork(self.network or TWIN, self.perceptual) if self.perceptual else None


def load_results(path: Path, scorer: str) -> list[Result]:
    """Read the JSON file of a run.

    Args:
        path: of the file.
        scorer: digest of the scorer.

    Returns:
        Nothing if there is no file, or one by another scorer or version of hdgan, or without one of today's metrics:
        the run is to be scored.

    Raises:
        CheckpointError: it is damaged.
    """
    if not os.path.lexists(path):
        return []
    remedy = "delete it to have the run scored again"
    records = read_json(path, list[dict[str, Any]], remedy)
    if any((record.get("scorer"), record.get("hdgan")) != (scorer, version("hdgan")) for record in records):
        return []
    results = from_plain(list[Result], records, str(path))
    if [result.row == REAL for result in results] != [True, False]:
        raise CheckpointError(f"{path} is damaged (not the scores of real photos and of one run): {remedy}")
    return results if all(set(METRICS) <= result.metrics.keys() for result in results) else []


@dataclass(frozen=True)
class Requested:
    """The requested runs of a scale, and the training of the networks that they need."""

    rows: tuple[str, ...]
    seeds: Variants
    """Runs of each row, from seed 0."""
    networks: dict[str, Record | None]
    """How long the training of the scorer and, if it is its twin, of the perceptual network took, by their names; None
    where it is unknown."""
    precision: str = "float32"
    """Of the training. The defaults of this field and of those below are what versions did that did not write them."""
    noise: Noise = 0.0
    """Of pix2pixHD's generator."""
    feature_weights: tuple[Weight, ...] = ()
    """Of the features in pix2pixHD's perceptual loss, fine to coarse; () are the usual ones."""
    taken: Annotated[int, Interval(ge=0, le=10**6)] = 0
    """How many of the rows are of earlier calls, and were not trained by the last one."""

    def __post_init__(self) -> None:
        if len(set(self.rows)) < len(self.rows):
            raise ConfigError("rows contains a name twice: give each once")

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Row and seed of each."""
        return [(row, seed) for row in self.rows for seed in range(self.seeds)]


def save_requested(path: Path, requested: Requested) -> None:
    """Write the JSON file next to the CSV file `path`."""
    write_json(path.with_suffix(".json"), requested)


def load_requested(path: Path) -> Requested:
    """Read the JSON file next to the CSV file `path`.

    Raises:
        DataError: it is missing or damaged.
    """
    file = path.with_suffix(".json")
    if not os.path.lexists(file):
        raise DataError(f"{file} does not exist: {remedy(path)}")
    return read_json(file, Requested, remedy(path), DataError)


def write_rows(path: Path, results: Sequence[Result]) -> None:
    """Write all results; metrics follow the other columns in the order in which they first occur."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    named = [field.name for field in fields(Result) if field.name != "metrics"]
    lines = (
        [_text(value) for value in (*(getattr(result, name) for name in named), *map(result.metrics.get, metrics))]
        for result in results
    )
    write_csv(path, [*named, *metrics], lines)


def read_results(path: Path) -> list[Result]:
    """Read what `write_rows` wrote.

    Raises:
        DataError: the file does not hold results of this version, or lacks some of what it held.
    """
    results = read_csv(path, Result, remedy(path), rest="metrics")
    if not any(result.row != REAL for result in results):
        raise DataError(f"{path} contains no runs: restore it from git, or {remedy(path)}")
    return results


def remedy(path: Path) -> str:
    """What to do about a CSV file that cannot be used."""
    return f"delete {path}, or write it again with hdgan reproduce --size {path.stem} --docs {path.parents[1]}"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
