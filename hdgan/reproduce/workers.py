"""Jobs in processes of their own, a few at a time.

A child watches its standard input: when the parent closes it, or is gone, the child saves and stops (`watch_parent`).
So Ctrl-C, a kill of the parent and a lost terminal end alike.
"""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

STOPPED = 130
"""Exit status of a job that was asked to stop."""


@dataclass(frozen=True)
class Job:
    """A Python module to run with arguments."""

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    """Takes what it prints."""


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    job: Job
    status: int

    @property
    def reason(self) -> str:
        """Why it failed: the signal that killed it, or the last thing that it printed, its error."""
        if self.status < 0:
            return f"killed by signal {-self.status} (out of memory?)"
        lines = self.job.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {self.status}")


class Workers:
    """Runs jobs in order; at the end of the context what still runs is killed.

    Args:
        jobs: to be run.
        at_once: processes side by side.
        threads: CPU threads of each.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int, threads: int) -> None:
        self.waiting = deque(jobs)
        self.running: dict[Job, subprocess.Popen[bytes]] = {}
        self._at_once = at_once
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.waiting or self.running)

    def poll(self) -> list[Ended]:
        """Start what has a place; return what has ended since the last call."""
        ended = []
        for job, process in list(self.running.items()):
            if process.poll() is not None:
                del self.running[job]
                _close(process)
                ended.append(Ended(job, process.returncode))
        while self.waiting and len(self.running) < self._at_once:
            self._start(self.waiting.popleft())
        return ended

    def stop(self) -> None:
        """Ask the running jobs to save and stop, and start no others."""
        self.waiting.clear()
        for process in self.running.values():
            _close(process)

    def _start(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            self.running[job] = subprocess.Popen(
                [sys.executable, "-m", job.module, *job.arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # The terminal's Ctrl-C reaches the parent alone, which passes it on once; the flag is Windows' way.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )


def _close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def watch_parent() -> None:
    """In a child: interrupt the main thread, as Ctrl-C would, once standard input is closed."""

    def watch() -> None:
        # os.read holds no lock of sys.stdin, which would be in the way of the interpreter's end.
        while os.read(0, 1):
            pass
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:  # Windows; there it does not wake a sleeping thread
            _thread.interrupt_main()

    # A shell that starts commands in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=watch, daemon=True).start()
