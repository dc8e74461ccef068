"""Errors that a user can act on.

The command line prints such an error as one line and exits with status 2. Any other error is a bug and keeps its
traceback. Each message names the file (if there is one), the value found, and the remedy.

Some files have a path that the user has never seen, such as one in a cache. `call` says once how they are called, and
every error that is raised afterwards calls them so.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Alias:
    """What messages say instead of a path."""

    name: str
    remedy: str


_aliases: dict[str, _Alias] = {}
"""By the path of a file or folder."""


def call(path: str | os.PathLike[str], name: str, remedy: str = "") -> None:
    """Let errors name a file, or the files of a folder, in the user's words.

    The setting belongs to the process. A path that is called again gets the new name.

    Args:
        path: as messages would write it. A file in a folder is called `name (file)`.
        name: what the user has typed for it.
        remedy: added to each `CheckpointError` about the path: what can be done about a file that cannot be used.
    """
    _aliases[os.fspath(path)] = _Alias(_as_called(name, with_remedy=False), remedy)


def called(path: str | os.PathLike[str]) -> str:
    """What the user calls a path, where `call` has said so; else the path."""
    return _as_called(str(path), with_remedy=False)


def _as_called(message: str, *, with_remedy: bool) -> str:
    """A message in which each path has the name that `call` gave it."""
    for path, alias in _aliases.items():
        message, times = re.subn(
            rf"{re.escape(path)}(?:[/\\]([\w-]+(?:\.[\w-]+)*))?(?![\w-])",
            lambda found, name=alias.name: f"{name} ({found[1]})" if found[1] else name,  # type: ignore[misc]
            message,
        )
        message += f"; {alias.remedy}" if times and with_remedy and alias.remedy else ""
    return message


class HdganError(Exception):
    """Base class of all errors that are caused by the user's input or machine, not by hdgan."""

    def __init__(self, message: object = "") -> None:
        super().__init__(_as_called(str(message), with_remedy=isinstance(self, CheckpointError)))


class ConfigError(HdganError):
    """An option, or a combination of options, that cannot work.

    It is not a ValueError, since the command-line parser would catch that and print it in a box.
    """


class DataError(HdganError, ValueError):
    """A dataset, or one file of it, that cannot be used."""


class CheckpointError(HdganError, RuntimeError):
    """A checkpoint that is missing, damaged, or of another architecture."""


class TrainingError(HdganError, RuntimeError):
    """Training that cannot continue: a loss that is not finite, a disk that is full."""


class DivergenceError(TrainingError):
    """Training that has failed in itself: a loss that is not finite, or a collapse that the watch has found.

    Args:
        problem: step, stage, and what is wrong there.
        remedy: what the user can do.
        symptom: what the watch calls it.
    """

    def __init__(self, problem: str, remedy: str, symptom: str = "not_finite") -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy, self.symptom = problem, remedy, symptom


class OtherProcessError(HdganError):
    """Another process of the run cannot go on; the message says why.

    Args:
        message: why.
        told: a process on this machine prints the reason already.
    """

    def __init__(self, message: str, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class OutputError(HdganError):
    """Standard output that cannot be written to, for example because a disk is full."""


class OutputClosed(OutputError):
    """Standard output whose reader has closed it, as `head` does. This is not a fault, but there is nothing left to
    do."""
