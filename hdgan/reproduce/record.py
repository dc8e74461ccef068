"""What a job took over all its sittings, and what it ran on."""

from __future__ import annotations

import hashlib
import json
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
from hdgan.config.serialization import to_plain
from hdgan.errors import ConfigError
from hdgan.files import atomic_file
from hdgan.files.json import read_json

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
    """Side by side."""


@dataclass(frozen=True)
class Record:
    """A job's time. A sitting that was killed counts for nothing; the loading of its Python modules never does."""

    began: str
    """When its first sitting began, such as 2026-11-23T03:09:57+00:00."""
    ended: str
    """When its last sitting ended."""
    seconds: Seconds
    """That went by during its sittings."""
    cpu_seconds: Seconds
    """Of its process and those that this started."""
    machine: Machine
    """Of its last sitting."""
    perceptual: str = ""
    """Digest of the perceptual network that a run trains with, if it does."""

    def __post_init__(self) -> None:
        check_times(self.began, self.ended)


def check_times(began: str, ended: str) -> None:
    """Make sure that times can be told apart; those that are not known are empty.

    Raises:
        ConfigError: one is no time with a time zone.
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
    return read_json(file, Record, "delete it, and the time of this job is not told") if os.path.lexists(file) else None


@contextmanager
def recorded(file: Path, machine: Machine, perceptual: str = "") -> Iterator[None]:
    """Add the time that the context takes to a job's record, however it ends."""
    start, cpu_before = time.monotonic(), _cpu_seconds()
    record = load_record(file) or Record(_now(), _now(), 0.0, 0.0, machine, perceptual)
    _save(file, record)
    try:
        yield
    finally:
        _save(
            file,
            replace(
                record,
                ended=_now(),
                seconds=record.seconds + time.monotonic() - start,
                cpu_seconds=record.cpu_seconds + _cpu_seconds() - cpu_before,
                machine=machine,
            ),
        )


def digest(content: bytes) -> str:
    """A short name of a content."""
    return hashlib.sha256(content).hexdigest()[:12]


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _save(file: Path, record: Record) -> None:
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(to_plain(record), indent=1) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _cpu_seconds() -> float:
    """Of this process, and of its children that have ended."""
    return sum(os.times()[:4])
