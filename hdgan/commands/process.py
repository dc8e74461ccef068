"""The surroundings of a command: standard streams, the width of the terminal, Ctrl-C, waiting threads, memory, and
garbage.

The programs start here, before anything heavy is imported, so that a problem with any of these never ends in a
traceback.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from types import FrameType
from typing import NoReturn, TextIO

from hdgan.allocator import keep_memory, use_huge_pages, use_one_heap
from hdgan.errors import OutputClosed, OutputError

INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit statuses that shells report for a program ended by SIGINT or SIGPIPE."""
REFUSED = 2
"""Exit status after an error that a user can act on."""
KEEPS_MEMORY = ("train", "bench")
"""Commands that keep freed memory. In the others its cost in peak memory is too high (docs/design.md), so they use huge
pages and one heap for all threads."""
SPINS = "5000"
"""How often a waiting thread of OpenMP polls before it sleeps. docs/design.md has the measurements."""
NARROWEST, WIDEST = 40, 400
"""Limits on the columns of help and tables: with fewer, hardly a word fits; with more, lines are mostly blank."""


def run(program: str, command: str) -> NoReturn:
    """Run a function as this program, and exit with the status that it returns.

    Args:
        program: module:function; the module is imported once Ctrl-C and the streams are taken care of.
        command: what the user wants of it, which decides about memory.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    _repair_streams()
    _limit_spinning()
    gc.disable()  # until the work begins: modules are no garbage, and looking for some takes a quarter of their import
    if command in KEEPS_MEMORY:
        keep_memory()
    else:
        use_huge_pages()
        use_one_heap()
    status: str | int | None
    try:
        status = resolve_name(program)()
    except SystemExit as stop:  # of tyro, after it has printed help or what is wrong with an option
        status = stop.code
    except KeyboardInterrupt:
        status = INTERRUPTED
    status = _flushed(status)
    _leave_memory_to_system()
    sys.exit(status)


def _leave_memory_to_system() -> None:
    """Let Python end without a search for garbage among all objects, since the system frees their memory anyway.

    Triton lists what it finds still in use at the end as leaks, so where it is imported, the search takes place.
    """
    if "triton" in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


def _limit_spinning() -> None:
    """Make waiting threads give up their core soon, unless the user has chosen how they wait.

    By default they spin for milliseconds at the end of every parallel loop. If another program occupies the core of the
    thread that they wait for, each of the thousands of loops in a training step takes that long. Threads that do not
    spin at all wake slowly on an idle machine, so they spin for some microseconds. GNU's OpenMP, which torch uses on
    Linux, reads the variable when torch is imported. Child processes inherit it.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def work_begins() -> None:
    """From now on let Ctrl-C raise KeyboardInterrupt, so that work in progress is ended properly.

    Before, it ends the process at once: an exception while a compiled module is imported can crash it. From now on
    Python also looks for garbage, though not among the modules that have been imported.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def sensible_width() -> Iterator[None]:
    """Limit the width of the terminal, as the code inside sees it, to a range in which text can be laid out."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "LINES")}
    columns, lines = shutil.get_terminal_size()
    sensible = min(max(columns, NARROWEST), WIDEST)
    if before["COLUMNS"] is not None or sensible != columns:
        os.environ["COLUMNS"] = str(sensible)
    if before["LINES"] is not None:
        os.environ["LINES"] = str(lines)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"hdgan: interrupted\n")
    os._exit(INTERRUPTED)


def _repair_streams() -> None:
    """Redirect closed standard streams, since files opened later would otherwise get their numbers; guard the
    others."""
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            _redirect(number, mode)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = _replaced(sys.stdout, 1, _Output)  # type: ignore[assignment, misc]
    sys.stderr = sys.__stderr__ = _replaced(sys.stderr, 2, _Errors)  # type: ignore[assignment, misc]


def _replaced(stream: TextIO | None, number: int, kind: type[io.TextIOWrapper]) -> TextIO:
    """A stream that explains its failures, and escapes characters that its encoding cannot represent."""
    if not isinstance(stream, io.TextIOWrapper):
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    lines, through, encoding = stream.line_buffering, stream.write_through, stream.encoding
    stream.flush()
    return kind(
        stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=lines, write_through=through
    )


def _redirect(number: int, mode: int = os.O_WRONLY) -> None:
    """Redirect a file descriptor to the null device."""
    nothing = os.open(os.devnull, mode)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


class _Output(io.TextIOWrapper):
    """Standard output. A failure to write to it is reported once."""

    def write(self, text: str, /) -> int:
        with _explained(self.fileno()):
            return super().write(text)

    def flush(self) -> None:
        with _explained(self.fileno()):
            super().flush()


class _Errors(_Output):
    """Standard error. A failure to write to it cannot be reported anywhere, so the work continues."""

    def write(self, text: str, /) -> int:
        with suppress(OutputError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OutputError):
            super().flush()


@contextmanager
def _explained(number: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _redirect(number)  # what is still in buffers would fail again
        if isinstance(error, BrokenPipeError) or (error.errno == errno.EINVAL and os.name == "nt"):
            raise OutputClosed("the reader of standard output has closed it") from error
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write to standard output: {reason}; free space or send it elsewhere") from error


def _flushed(status: str | int | None) -> str | int | None:
    """The exit status, once everything has been printed."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    try:
        sys.stdout.flush()
    except OutputClosed:
        return PIPE_CLOSED
    except OutputError as error:
        print(f"hdgan: error: {error}", file=sys.stderr)
        return REFUSED
    return status
