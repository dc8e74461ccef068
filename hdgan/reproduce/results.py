"""Raw results: those of a run as JSON in its folder, and all together as CSV with what was asked for beside it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

from hdgan.config_io import from_plain, to_plain
from hdgan.errors import CheckpointError, DataError
from hdgan.files import atomic_file
from hdgan.reproduce.record import Record

REAL = "real"
"""The row of real photos, the oracle; it has no seed."""


@dataclass(frozen=True)
class Result:
    """Scores of one run, and what they were measured with."""

    scale: str
    row: str
    seed: int | None
    """None for real photos."""
    width: int
    height: int
    train_scenes: int
    held_out: int
    """Pictures that the scores are of."""
    images: int
    """Training pictures that the run saw."""
    steps: int
    parameters: int
    """Of the generator."""
    began: str
    """This and what follows up to jobs is of the run's `Record`; empty without one."""
    ended: str
    seconds: float | None
    cpu_seconds: float | None
    device: str
    cores: int | None
    threads: int | None
    jobs: int | None
    torch: str
    """Version that scored the run, as is hdgan's."""
    hdgan: str
    config: str
    """Digest of the run's config, paths and machine aside."""
    perceptual: str
    """Digest of the network that the perceptual loss took its features from; empty without that loss."""
    scorer: str
    """Digest of the network that judged."""
    scorer_features: int
    """Channels that the FID of the scorer's features is of."""
    notes: str
    """Metrics that could not be had, and why."""
    metrics: dict[str, float | None]


_TYPES = {field.name: get_type_hints(Result)[field.name] for field in fields(Result) if field.name != "metrics"}


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
    if not path.is_file():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it to have the run scored again") from error
    if any((record.get("scorer"), record.get("hdgan")) != (scorer, version("hdgan")) for record in records):
        return []
    return [from_plain(Result, record, str(path)) for record in records]


@dataclass(frozen=True)
class Wanted:
    """What the rows of a scale are to be, and what was needed besides them."""

    rows: tuple[str, ...]
    seeds: int
    """Runs of each row, from seed 0."""
    networks: dict[str, Record | None]
    """What the training of the scorer and the perceptual network took, by their names; None where it was not kept."""

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
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): {remedy(path)}") from error
    return from_plain(Wanted, content, str(file))


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write all results; metrics follow the other columns in the order in which they first come."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*_TYPES, *metrics], lineterminator="\n")
        writer.writeheader()
        for result in results:
            values = asdict(result)
            values |= values.pop("metrics")
            writer.writerow({name: _text(value) for name, value in values.items()})


def read_csv(path: Path) -> list[Result]:
    """Read what `write_csv` wrote.

    Raises:
        DataError: the file does not hold results of this version, or lacks some of what it held.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if columns[: len(_TYPES)] != list(_TYPES):
            raise DataError(f"{path} holds other columns than this version of hdgan writes: {remedy(path)}")
        try:
            results = [_parsed(line, columns[len(_TYPES) :]) for line in reader]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; restore the file from git") from error
    if not any(result.row != REAL for result in results):
        raise DataError(f"{path} holds no run: restore it from git, or {remedy(path)}")
    return results


def remedy(path: Path) -> str:
    """What to do about a CSV file that cannot be used."""
    return f"delete {path}, or write it again by hdgan reproduce --size {path.stem} --docs {path.parents[1]}"


def _parsed(line: dict[str, str], metrics: Sequence[str]) -> Result:
    # DictReader fills a line that is cut with None, and collects what is too much under None.
    if None in line or None in line.values():
        raise ValueError("another number of fields than columns")
    values: dict[str, Any] = {name: _value(kind, line[name]) for name, kind in _TYPES.items()}
    return Result(**values, metrics={name: float(line[name]) if line[name] else None for name in metrics})


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if not text and kind in (int | None, float | None):
        return None
    return float(text) if kind == float | None else int(text)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
