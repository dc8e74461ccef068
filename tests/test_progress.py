"""The sign of life of long work, with a terminal and without."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from hdgan import progress
from hdgan.progress import Progress, showing_progress


def console(terminal: bool = False) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=200, force_terminal=terminal), output


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_part_that_takes_long_prints_its_state_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    log, output = console()
    with showing_progress(log) as show:
        show("drawing [maps]", 1, 4, "winter")
        wait_for(lambda: output.getvalue().count("\n") >= 2)
    assert re.search(r"^drawing \[maps\]: 1 of 4, winter, 0:00:\d\d so far$", output.getvalue(), re.MULTILINE)


def test_work_that_has_not_told_its_task_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.0)
    log, output = console()
    with showing_progress(log):
        wait_for(lambda: "\n" in output.getvalue())
    assert re.fullmatch(r"0:00:\d\d so far\n", output.getvalue())


@pytest.mark.parametrize("error", [None, ValueError])
def test_quick_work_prints_nothing_and_ends_at_once(error: type[Exception] | None) -> None:
    log, output = console()
    began = time.monotonic()
    try:
        with showing_progress(log) as show:
            show("drawing", 1, 1)
            if error:
                raise error
    except ValueError:
        assert error
    assert output.getvalue() == ""
    assert time.monotonic() - began < progress.FIRST_LINE_SECONDS / 2


def test_a_terminal_shows_a_bar_of_each_task() -> None:
    screen, output = console(terminal=True)
    with showing_progress(screen) as show:
        show("sorting [red]", 1, 2, "[bold]x")
        show("drawing", 0, 0)
        wait_for(lambda: "drawing" in output.getvalue())
    shown = output.getvalue()
    assert "50%" in shown
    assert "sorting [red]" in shown  # a name is no markup
    assert "[bold]x" in shown
    assert "so far" not in shown


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ([("a", 0, 10)], "a: 0 of 10, 0:01:00 so far"),
        ([("a", 0, 10), ("a", 4, 10)], "a: 4 of 10, 0:01:00 so far, about 0:01:30 left"),
        ([("a", 5, 10), ("a", 8, 10)], "a: 8 of 10, 0:01:00 so far, about 0:00:40 left"),
        ([("a", 10, 10)], "a: 10 of 10, 0:01:00 so far"),
        ([("a", 7, 0)], "a, 0:01:00 so far"),
        ([("a", 3, 10), ("b", 0, 0, "c")], "b, c, 0:01:00 so far"),
    ],
    ids=["begun", "going", "resumed", "done", "total unknown", "next task"],
)
def test_the_state_in_words(monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, int, int]], line: str) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    state = Progress(None)
    for call in told:
        state(*call)
    clock[0] = 60.0
    assert state.line() == line
