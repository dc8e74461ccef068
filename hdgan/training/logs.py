"""What a run reports while it trains: progress on the terminal, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from hdgan import progress
from hdgan.errors import CheckpointError, TrainingError
from hdgan.files import leads_out, require_file, write_text
from hdgan.files.json import parse_json, read_bytes
from hdgan.training.tracking import Tracker

METRICS_FILE = "metrics.jsonl"
Event = Literal["warning", "rollback", "early_end"]
OnMetrics = Callable[[int, str, Mapping[str, float]], None]
"""Takes the step, the name of the stage and the values, whose names are those in metrics.jsonl."""
PLAIN_LINE_SECONDS = 10.0
"""Time between lines if the output is not a terminal."""


class Metrics:
    """metrics.jsonl, TensorBoard and the tracker: one record every few steps, and one for each event.

    Args:
        run: folder of the run.
        step: step that the run starts from; later records, of a run that was killed, are dropped.
        rollbacks: of the run so far; records of later ones, of a run that was killed during one, are dropped.
        tracker: gets the same values, and outlives this object.

    Attributes:
        on_metrics: called with the values of each record.
    """

    def __init__(self, run: Path, step: int, rollbacks: int = 0, tracker: Tracker | None = None) -> None:
        self.run, self.path, self.tracker = run, run / METRICS_FILE, tracker
        self.on_metrics: OnMetrics | None = None
        self._open(step, rollbacks)

    def _open(self, step: int, rollbacks: int) -> None:
        kept = [r for r in read_metrics(self.run) if r["step"] <= step and r.get("rollbacks", 0) <= rollbacks]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self.run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Record values of one step."""
        with self._explained():
            self._append({"step": step, "stage": stage, **values})
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self.tracker is not None:
            self.tracker.scalars(step, values)
        if self.on_metrics is not None:
            self.on_metrics(step, stage, values)

    def event(self, step: int, stage: str, event: Event, text: str, **numbers: int) -> None:
        """Record something that has happened at a step, in words."""
        with self._explained():
            self._append({"step": step, "stage": stage, "event": event, "text": text, **numbers})
            self._board.add_text(event, text, step)

    def rewind(self, step: int, rollbacks: int) -> None:
        """Drop the records after a step, as a run does that starts from there."""
        self.close()
        self._open(step, rollbacks)

    def _append(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror or error}; free space, then resume the run"
            ) from error

    def close(self) -> None:
        with suppress(OSError):  # every record is written; what a full disk refused has been reported
            self._file.close()
        with suppress(OSError):
            self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that a kill cut short is left out.

    Returns:
        One table a line: step (from 0) and stage, and numbers by their names.

    Raises:
        CheckpointError: another line is damaged.
    """
    path = run / METRICS_FILE
    if not os.path.lexists(path):
        return []
    lines = read_bytes(path, _GROWTH, "a file of metrics").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line, f"{path} line {number}"))
        except CheckpointError:
            if number < len(lines):
                raise
    return records


def last_record(run: Path) -> dict[str, Any] | None:
    """The last record of a run that was written to its end; None without one. Only the end of the file is read.

    Raises:
        CheckpointError: the record is damaged, or the file cannot be read.
    """
    path = run / METRICS_FILE
    if not os.path.lexists(path):
        return None
    require_file(path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LONGEST))
            whole = file.read().rpartition(b"\n")[0]
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read ({problem.strerror}): make it readable") from problem
    return _record(whole.rpartition(b"\n")[2], f"{path}, last line") if whole else None


def _record(line: bytes, where: str) -> dict[str, Any]:
    record = parse_json(line, where, _REMEDY)
    if not isinstance(record, dict) or not {"step", "stage"} <= record.keys():
        raise CheckpointError(f"{where} is damaged (no record with step and stage): {_REMEDY}")
    for name, value in record.items():
        if name == "stage":
            fits = isinstance(value, str) and not leads_out(value)
        elif name in ("event", "text"):
            fits = isinstance(value, str)
        else:
            fits = type(value) is int and value >= 0 if name == "step" else type(value) in (int, float)
        if not fits:
            raise CheckpointError(f"{where} is damaged ({name[:60]} is {value!r:.60}): {_REMEDY}")
    return record


_GROWTH = 8
"""A record takes up to about this many times the bytes of its line."""
_LONGEST = 2**16
"""Bytes that no record reaches."""
_REMEDY = "delete that line"


class ProgressDisplay:
    """A bar with losses, images per second and the remaining time; plain lines without a terminal."""

    def __init__(self, console: Console, total_steps: int, step: int) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=step, losses="", speed="")
        self._start = (time.monotonic(), step)
        self._last_line = 0.0
        self._total = total_steps

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._bar.stop()

    def update(self, step: int, stage: str, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show the state after `step`."""
        shown = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        speed = f"{images_per_second:.1f} img/s"
        with suppress(OSError):  # of a terminal that has closed: the run is still to be saved
            self._bar.update(self._task, completed=step, description=stage, losses=shown, speed=speed)
            now = time.monotonic()
            if not self._console.is_terminal and (now - self._last_line > PLAIN_LINE_SECONDS or step == self._total):
                self._last_line = now
                began, first = self._start
                left = (now - began) / max(step - first, 1) * (self._total - step)
                line = f"{stage} step {step}/{self._total} {shown} {speed} ETA {timedelta(seconds=round(left))}"
                progress.print_lines(self._console, line)

    def skip(self, steps: int) -> None:
        """Count steps that are left out, or (below 0) taken again, as taking no time."""
        began, first = self._start
        self._start = began, first + steps

    def between_steps(self) -> AbstractContextManager[progress.Progress]:
        """Progress of long work between two steps: lines in a log. On a terminal the bar does not change."""
        terminal = self._console.is_terminal
        return nullcontext(progress.Progress(None)) if terminal else progress.showing_progress(self._console)
