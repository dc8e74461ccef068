"""Progress of long work: a bar on a terminal, otherwise occasional lines, as suits a log file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import rich.progress
from rich.console import Console
from rich.markup import escape

FIRST_LINE_SECONDS, LINE_SECONDS = 10.0, 30.0
"""Without a terminal: seconds until the first line, and between lines."""


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are: paths and values have no markup or emoji codes, and a terminal does the wrapping."""
    for line in lines:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


class Progress:
    """The progress of work. `showing_progress` makes one."""

    def __init__(self, bar: rich.progress.Progress | None) -> None:
        self._bar = bar
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._state = ("", 0, 0, "")
        self._began = (time.monotonic(), 0)

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Note that `done` of `total` parts of a task are done.

        Args:
            task: what is done; another name starts a new task.
            done: number of parts.
            total: number of parts; 0 if unknown.
            detail: what else to show, such as the current part.
        """
        if self._state[0] != task:
            self._began = time.monotonic(), done
        self._state = task, done, total, detail
        if self._bar is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bar.add_task(escape(task), total=total or None, detail=detail)
            self._bar.update(self._tasks[task], completed=done, total=total or None, detail=detail)

    def line(self) -> str:
        """The state in words: "train: 120 of 2975, 0:01:30 so far, about 0:35:40 left"."""
        task, done, total, detail = self._state
        began, first = self._began  # a task that continues an earlier run has parts that took no time
        passed = time.monotonic() - began
        parts = [f"{task}: {done} of {total}" if total else task, detail, f"{_duration(passed)} so far"]
        if first < done < total:
            parts.append(f"about {_duration(passed * (total - done) / (done - first))} left")
        return ", ".join(filter(None, parts))


@contextmanager
def showing_progress(console: Console) -> Iterator[Progress]:
    """Show the progress of work while the block runs, even during a long part.

    Args:
        console: usually of standard error. A bar if it is a terminal; otherwise a line after 10 seconds and then every
            30 seconds.
    """
    if console.is_terminal:
        detail = rich.progress.TextColumn("{task.fields[detail]}", markup=False)
        columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn(), detail)
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            yield Progress(bar)
        return
    progress, ended = Progress(None), threading.Event()

    def report() -> None:
        wait = FIRST_LINE_SECONDS
        while not ended.wait(wait):
            print_lines(console, progress.line())
            wait = LINE_SECONDS

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield progress
    finally:
        ended.set()
        reporter.join()


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
