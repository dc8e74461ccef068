"""What `hdgan reproduce` shows while it works: runs done of all, those at work, the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

PLAIN_LINE_SECONDS = 60.0
"""Between lines where the output is no terminal."""


class Display:
    """A bar for everything and one for each job at work; plain lines where there is no terminal.

    Args:
        console: where it is shown.
        what: the jobs are: networks or runs.
        total: all jobs.
        done: those done before.
    """

    def __init__(self, console: Console, what: str, total: int, done: int) -> None:
        self._console, self._what, self._total, self._done = console, what, total, done
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._overall = self._bar.add_task(what, total=total, completed=done, state="")
        self._tasks: dict[str, TaskID] = {}
        self._start = (time.monotonic(), float(done))
        self._last_line = time.monotonic()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def end(self, name: str, how: str) -> None:
        """A job has ended: say how."""
        self._done += how == "done"
        self._say(f"{name}: {how} ({self._done} of {self._total} {self._what})")

    def update(self, working: Mapping[str, float | None], stopping: bool) -> None:
        """Show the jobs at work, each with the share of it that is done; None where nobody knows."""
        for name in self._tasks.keys() - working.keys():
            self._bar.remove_task(self._tasks.pop(name))
        for name, share in working.items():
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(name, total=None if share is None else 1.0, state="")
            self._bar.update(self._tasks[name], completed=share, state=_percent(share))
        completed = self._done + sum(share or 0.0 for share in working.values())
        state = f"{self._done}/{self._total}, " + ("saving" if stopping else f"ETA {self._left(completed)}")
        self._bar.update(self._overall, completed=completed, state=state)
        if not self._console.is_terminal and time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            shares = ", ".join(f"{name} {_percent(share)}" for name, share in working.items())
            self._say(f"{self._what} {state}: {shares}")

    def _left(self, completed: float) -> str:
        began, first = self._start
        if completed <= first:
            return "unknown"
        left = (time.monotonic() - began) / (completed - first) * (self._total - completed)
        return str(timedelta(seconds=round(left)))

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _percent(share: float | None) -> str:
    return "at work" if share is None else f"{share:.0%}"
