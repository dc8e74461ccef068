"""Time adds up over sittings, whatever ends them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from hdgan.errors import CheckpointError
from hdgan.reproduce.record import Machine, cores, digest, load_record, recorded

MACHINE = Machine("CPU", cores=2, threads=1, jobs=2)


def test_sittings_add_up(tmp_path: Path) -> None:
    file = tmp_path / "run" / "record.json"
    with recorded(file, MACHINE, "beef"):
        begun = load_record(file)
    first = load_record(file)
    with suppress(KeyboardInterrupt), recorded(file, Machine("CPU", 2, 1, 1), "beef"):
        sum(range(200_000))
        raise KeyboardInterrupt
    second = load_record(file)
    assert begun is not None
    assert first is not None
    assert second is not None
    assert (begun.seconds, begun.perceptual, begun.machine) == (0.0, "beef", MACHINE)
    assert second.began == first.began == begun.began <= first.ended <= second.ended
    assert 0 < first.seconds < second.seconds
    assert first.cpu_seconds <= second.cpu_seconds
    assert (second.machine.jobs, second.perceptual) == (1, "beef")


def test_a_job_may_have_none_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert load_record(file) is None
    file.write_text("{")
    with pytest.raises(CheckpointError, match=r"record\.json is damaged .*delete it"):
        load_record(file)


def test_digests_tell_contents_apart() -> None:
    assert digest(b"one") == digest(b"one") != digest(b"two")


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3}, raising=False)
    assert cores() == 1
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores() == 1
