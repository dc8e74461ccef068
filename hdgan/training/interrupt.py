"""Signals: Ctrl-C and termination make a run save first; the death of a data worker is handled after the step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """While active, the first SIGINT, SIGTERM or SIGHUP asks to stop after this step.

    A second Ctrl-C interrupts at once. SIGHUP, sent when a terminal closes, stays ignored under nohup.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _stop_signals():
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def defer_sigchld() -> Iterator[None]:
    """Let no death of a child process interrupt what runs inside.

    When a reader dies, torch raises an error from its handler of SIGCHLD, wherever the program then is: in an optimizer
    too, with half of the weights moved. The loader also notices the death when it waits for that reader.
    """
    child: signal.Signals | None = getattr(signal, "SIGCHLD", None)  # Windows has none
    handler = None if child is None else signal.getsignal(child)  # None, too, of a handler that is not Python's
    if child is None or handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(child, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(child, handler)


def _stop_signals() -> list[signal.Signals]:
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]
