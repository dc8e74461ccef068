"""Each process of a machine has its part of the cores, unless the user says otherwise."""

from __future__ import annotations

import pytest
import torch

from hdgan.sharding import cores


@pytest.mark.parametrize(("processes", "expected"), [(None, 8), ("1", 8), ("2", 4), ("3", 2), ("16", 1)])
def test_the_processes_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, processes: str | None, expected: int
) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert cores.own_cores() == cores.own_threads() == expected


def test_threads_that_the_user_has_chosen_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores.own_threads() == torch.get_num_threads()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(cores.Path, "read_bytes", lambda self: b"HOME=/\0OMP_NUM_THREADS=1\0")
    assert cores.own_threads() == torch.get_num_threads()


def test_the_single_thread_of_torchrun_is_no_choice_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(cores.Path, "read_bytes", lambda self: b"HOME=/\0")
    assert cores.own_threads() == 4
