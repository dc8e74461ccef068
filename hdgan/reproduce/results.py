"""Raw results: one record a run, as JSON beside the run and all together as CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from hdgan.config_io import from_plain, to_plain
from hdgan.errors import CheckpointError, DataError
from hdgan.files import atomic_file

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
    seconds: float
    """Of the training steps, as the run logged them."""
    parameters: int
    """Of the generator."""
    device: str
    cores: int
    threads: int
    """CPU threads of the run."""
    jobs: int
    """Runs side by side."""
    torch: str
    hdgan: str
    notes: str
    """Metrics that could not be had, and why."""
    metrics: dict[str, float | None]


_TYPES = {field.name: get_type_hints(Result)[field.name] for field in fields(Result) if field.name != "metrics"}


def save_results(path: Path, results: Sequence[Result]) -> None:
    """Write the JSON file of a run."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps([to_plain(result) for result in results], indent=1) + "\n", encoding="utf-8")


def load_results(path: Path) -> list[Result]:
    """Read the JSON file of a run.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it to have the run scored again") from error
    return [from_plain(Result, record, str(path)) for record in records]


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
        DataError: the file does not hold results of this version.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        if columns[: len(_TYPES)] != list(_TYPES):
            raise DataError(f"{path} holds other columns than this version of hdgan writes: run hdgan reproduce again")
        try:
            return [_parsed(line, columns[len(_TYPES) :]) for line in reader]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; restore the file from git") from error


def _parsed(line: dict[str, str], metrics: Sequence[str]) -> Result:
    values: dict[str, Any] = {name: _value(kind, line[name]) for name, kind in _TYPES.items()}
    return Result(**values, metrics={name: float(line[name]) if line[name] else None for name in metrics})


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if kind == int | None:
        return int(text) if text else None
    return kind(text)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
