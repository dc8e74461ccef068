"""`hdgan` in separate processes, which save and end when a stop is requested."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hdgan.errors import TrainingError
from hdgan.training.interrupt import StopRequest

SAVED = 130
"""Exit status of a command that was asked to stop."""
LOOK_SECONDS = 0.2
"""Seconds between checks of a process."""


class Stopped(Exception):
    """A process has ended early because it was asked to stop, or was not started because a stop is requested."""


def call(command: Sequence[str], log: Path, threads: int, stop: StopRequest, cpu_seconds: list[float]) -> None:
    """Run `hdgan` with these arguments.

    Args:
        command: the arguments.
        log: file that the output is added to.
        threads: CPU threads of the process.
        stop: says whether a stop is requested. The process is then asked once to save and end.
        cpu_seconds: list that takes the CPU seconds of the process and of those that it started, however it ends.

    Raises:
        TrainingError: the process failed, with its error and the log.
        Stopped: a stop was requested, here or only from the process.
    """
    if stop.requested:
        raise Stopped
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hdgan", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        status, used = _wait_for(process, stop)
    cpu_seconds.append(used)
    if status == SAVED or (stop.requested and status in (-signal.SIGINT, -signal.SIGTERM)):
        raise Stopped
    if status:
        raise TrainingError(f"{_reason(status, log)} (the whole log: {log})")


def _wait_for(process: subprocess.Popen[bytes], stop: StopRequest) -> tuple[int, float]:
    """The exit status of a process, or the negative number of the signal that ended it, and its CPU seconds."""
    asked = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_utime + usage.ru_stime
        if stop.requested and not asked:
            # By SIGTERM: Ctrl-C in a terminal has reached it already, and a second one would end `hdgan train` at once.
            process.terminate()
            asked = True
        time.sleep(LOOK_SECONDS)


def _reason(status: int, log: Path) -> str:
    """Why a process failed: the signal that killed it, or the last line that it printed, which is its error."""
    if status < 0:
        return f"killed by signal {-status} (out of memory?)"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {status}")
    return last.removeprefix("hdgan: error: ")
