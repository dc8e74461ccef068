"""Signals ask a run to save first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.checkpoints import list_steps
from hdgan.training import TrainConfig
from hdgan.training.interrupt import StopRequest
from hdgan.training.logs import read_metrics

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """SIGHUP as terminals leave it, for this process and those it starts, even if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_of_the_whole_group_saves(
    make_config: MakeConfig,
    to_arguments: Callable[[TrainConfig], list[str]],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """As torchrun, systemd and Slurm end a job: the processes that read images get the signal as well."""
    config = make_config(tmp_path / "run", images=10**6)
    config = replace(config, data=replace(config.data, workers=1))
    command = [sys.executable, "-m", "hdgan", "train", *to_arguments(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while process.poll() is None and not read_metrics(config.out):
        time.sleep(0.01)
    os.killpg(process.pid, number)
    try:
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "stopped after step" in output
    assert len(list_steps(config.out)) == 1


@pytest.mark.usefixtures("no_nohup")
def test_a_hangup_that_is_ignored_stays_so() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
