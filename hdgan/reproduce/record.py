"""How long a job took in total over all its sessions, and on what machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from hdgan.config.bounds import Count
from hdgan.errors import ConfigError
from hdgan.files.json import read_json, write_json

DIGITS = 12
"""Hexadecimal digits of a SHA-256 that records and rows keep."""
Seconds = Annotated[float, Interval(ge=0, le=10**12)]


@dataclass(frozen=True)
class Machine:
    """What a job runs on."""

    device: str
    """CPU, or the name of the GPU."""
    cores: Count
    """CPU cores that it may use."""
    threads: Count
    """CPU threads of each job."""
    jobs: Count
    """Jobs that run at the same time."""


@dataclass(frozen=True)
class Record:
    """The time of a job. A session does not count if `hdgan reproduce` itself was killed."""

    began: str
    """When the first session began, such as 2026-11-23T03:09:57+00:00."""
    ended: str
    """When the last session ended."""
    seconds: Seconds
    """Total duration of all sessions in seconds."""
    cpu_seconds: Seconds
    """CPU time of its processes and of those that they started."""
    machine: Machine
    """The machine of the last session."""
    perceptual: str = ""
    """Digest of the perceptual network that a run trains with; empty without one."""

    def __post_init__(self) -> None:
        check_times(self.began, self.ended)


def check_times(began: str, ended: str) -> None:
    """Check that times can be compared with each other; unknown ones are empty.

    Raises:
        ConfigError: one is not a time with a time zone.
    """
    for name, text in (("began", began), ("ended", ended)):
        try:
            fits = not text or datetime.fromisoformat(text).tzinfo is not None
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(f"{name} is {text!r:.60}: give a time such as 2026-11-23T03:09:57+00:00")


def load_record(file: Path) -> Record | None:
    """The record of a job; None if it has none.

    Raises:
        CheckpointError: it is damaged.
    """
    return (
        read_json(file, Record, "delete it; the page is then written without this time")
        if os.path.lexists(file)
        else None
    )


@contextmanager
def sitting(file: Path | None, machine: Machine, perceptual: str) -> Iterator[list[float]]:
    """Add the time of the block to a job's record, which exists from the start of the job.

    Args:
        file: of the record; None keeps none.
        machine: what the job runs on.
        perceptual: digest of the perceptual network that a run trains with.

    Yields:
        A list that takes the CPU seconds of each process.
    """
    start, cpu_seconds = time.monotonic(), list[float]()
    if file is None:
        yield cpu_seconds
        return
    record = load_record(file) or Record(_now(), _now(), 0.0, 0.0, machine, perceptual)
    write_json(file, record)
    try:
        yield cpu_seconds
    finally:
        seconds, cpu_total = record.seconds + time.monotonic() - start, record.cpu_seconds + sum(cpu_seconds)
        write_json(file, replace(record, ended=_now(), seconds=seconds, cpu_seconds=cpu_total, machine=machine))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def digest(content: bytes) -> str:
    """A short digest of a content."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]
