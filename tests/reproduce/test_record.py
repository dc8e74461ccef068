"""Time adds up over sittings, whatever ends them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from hdgan.errors import CheckpointError
from hdgan.reproduce.record import Machine, digest, load_record, sitting

MACHINE = Machine("CPU", cores=2, threads=1, jobs=2)


def test_sittings_add_up(tmp_path: Path) -> None:
    file = tmp_path / "run" / "record.json"
    with sitting(file, MACHINE, "beef") as cpu_seconds:
        begun = load_record(file)
        cpu_seconds.append(0.25)
    first = load_record(file)
    with suppress(KeyboardInterrupt), sitting(file, Machine("CPU", 2, 1, 1), "beef") as cpu_seconds:
        cpu_seconds += [0.5, 1.0]
        raise KeyboardInterrupt
    second = load_record(file)
    assert begun is not None
    assert first is not None
    assert second is not None
    assert (begun.seconds, begun.perceptual, begun.machine) == (0.0, "beef", MACHINE)
    assert second.began == first.began == begun.began <= first.ended <= second.ended
    assert 0 < first.seconds < second.seconds
    assert (first.cpu_seconds, second.cpu_seconds) == (0.25, 1.75)
    assert (second.machine.jobs, second.perceptual) == (1, "beef")


def test_a_job_may_have_none_and_damage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert load_record(file) is None
    file.write_text("{")
    with pytest.raises(CheckpointError, match=r"record\.json is damaged .*delete it"):
        load_record(file)


def test_digests_tell_contents_apart() -> None:
    assert digest(b"one") == digest(b"one") != digest(b"two")
