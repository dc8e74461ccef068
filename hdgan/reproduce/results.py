"""Raw results: those of a run as JSON in its folder, and all together as CSV with what was asked for beside it."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from hdgan.config.bounds import Count, Seed, Side, Variants
from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.files import atomic_file, leads_out
from hdgan.files.csv import read_csv
from hdgan.files.json import read_json
from hdgan.reproduce.record import Record, Seconds, check_times

Parameters = Annotated[int, Interval(ge=0, le=10**15)]
Score = Annotated[float, Interval(ge=-(10**9), le=10**9)]
REAL = "real"
"""The row of real photos, the oracle; it has no seed."""


@dataclass(frozen=True)
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
    """Pictures that the scores are of."""
    images: Count
    """Training pictures that the run saw."""
    steps: Count
    parameters: Parameters
    """Of the generator."""
    began: str
    """This and what follows up to jobs is of the run's `Record`; empty without one."""
    ended: str
    seconds: Seconds | None
    cpu_seconds: Seconds | None
    device: str
    cores: Count | None
    threads: Count | None
    jobs: Count | None
    torch: str
    """Version that scored the run, as is hdgan's."""
    hdgan: str
    config: str
    """Digest of the run's config, paths and machine aside."""
    perceptual: str
    """Digest of the network that the perceptual loss took its features from; empty without that loss."""
    scorer: str
    """Digest of the network that judged."""
    scorer_features: Count
    """Channels that the FID of the scorer's features is of."""
    notes: str
    """Metrics that could not be had, and why."""
    metrics: dict[str, Score | None]

    def __post_init__(self) -> None:
        if leads_out(self.scale):
            raise ConfigError(f"scale is {self.scale!r:.60}: give the name of a scale")
        check_times(self.began, self.ended)


def save_results(path: Path, results: Sequence[Result]) -> None:
    """Write the JSON file of a run."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps([to_plain(result) for result in results], indent=1) + "\n", encoding="utf-8")


def load_results(path: Path, scorer: str) -> list[Result]:
    """Read the JSON file of a run.

    Args:
        path: of the file.
        scorer: digest of the network that judges.

    Returns:
        Nothing if there is no file, or it is of another scorer or version of hdgan: the run is to be scored.

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
    return results


@dataclass(frozen=True)
class Wanted:
    """What the rows of a scale are to be, and what was needed besides them."""

    rows: tuple[str, ...]
    seeds: Variants
    """Runs of each row, from seed 0."""
    networks: dict[str, Record | None]
    """What the training of the scorer and the perceptual network took, by their names; None where it was not kept."""

    def __post_init__(self) -> None:
        if len(set(self.rows)) < len(self.rows):
            raise ConfigError("rows has a name twice: give each once")

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Row and seed of each."""
        return [(row, seed) for row in self.rows for seed in range(self.seeds)]


def save_wanted(path: Path, wanted: Wanted) -> None:
    """Write what belongs beside the CSV file `path`."""
    with atomic_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(to_plain(wanted), indent=1) + "\n", encoding="utf-8")


def load_wanted(path: Path) -> Wanted:
    """Read what lies beside the CSV file `path`.

    Raises:
        DataError: it is missing or damaged.
    """
    file = path.with_suffix(".json")
    if not os.path.lexists(file):
        raise DataError(f"{file} does not exist: {remedy(path)}")
    return read_json(file, Wanted, remedy(path), DataError)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write all results; metrics follow the other columns in the order in which they first come."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        named = [field.name for field in fields(Result) if field.name != "metrics"]
        writer = csv.DictWriter(file, [*named, *metrics], lineterminator="\n")
        writer.writeheader()
        for result in results:
            values = asdict(result)
            values |= values.pop("metrics")
            writer.writerow({name: _text(value) for name, value in values.items()})


def read_results(path: Path) -> list[Result]:
    """Read what `write_csv` wrote.

    Raises:
        DataError: the file does not hold results of this version, or lacks some of what it held.
    """
    results = read_csv(path, Result, remedy(path), rest="metrics")
    if not any(result.row != REAL for result in results):
        raise DataError(f"{path} holds no run: restore it from git, or {remedy(path)}")
    return results


def remedy(path: Path) -> str:
    """What to do about a CSV file that cannot be used."""
    return f"delete {path}, or write it again by hdgan reproduce --size {path.stem} --docs {path.parents[1]}"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
