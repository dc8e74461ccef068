"""What may be opened: ordinary files, and names that stay in their folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PureWindowsPath

from hdgan.config.options import option
from hdgan.errors import ConfigError, HdganError


def require_file(path: Path, error: type[HdganError] = HdganError) -> None:
    """Refuse what is not an ordinary file before it is opened: reading a pipe or a device could block forever.

    Args:
        path: a file that will be read; links are followed.
        error: the class of the error to raise.

    Raises:
        HdganError: of the given class, if there is no such file, or if it is a folder, pipe, device or socket.
    """
    mode = mode_of(path, error)
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise error(f"{path} is {kind}, not a file: give an ordinary file")


def mode_of(path: Path, error: type[HdganError], remedy: str = "check the path") -> int:
    """The mode of a file or folder, links followed, from which `stat` tells its kind.

    Raises:
        HdganError: of the given class, if nothing is there or it cannot be examined; the message ends in `remedy`.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise error(f"{path} does not exist: {remedy}") from None
    except (OSError, ValueError) as problem:  # a loop of links, a name that is too long or contains a NUL
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path!s:.300} cannot be opened ({reason}): {remedy}") from problem


def require_no_file(folder: Path, name: str = "out") -> None:
    """Refuse the folder of --out if a file, device or loop of links is in its place, or in that of a folder above it,
    before any work is done.

    Args:
        folder: need not exist.
        name: of the option that gives it.

    Raises:
        ConfigError: the path exists and is not a folder, or lies below one that is none.
    """
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)
    if there is None or there.is_dir():
        return
    where = "exists and" if there == folder else f"lies in {there}, which"
    raise ConfigError(f"{option(name)} {folder} {where} is not a folder: choose another")


def create_empty(file: Path) -> None:
    """Create a file, and the folders that it lies in, unless they are there.

    A lock needs this first: filelock takes a file that cannot be created for one that another process holds.

    Raises:
        OSError: it cannot be created.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except FileNotFoundError as error:  # of a file system such as that of /proc
        there = next(path for path in file.absolute().parents if path.is_dir())
        raise FileNotFoundError(error.errno, f"{there} takes no new files") from error


def same_path(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place, which need not exist.

    A loop of links leads nowhere, so it is the same as itself only. `Path.resolve` fails for it before Python 3.13.
    """
    return _resolved(one) == _resolved(other)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:
        return path.absolute()


def leads_out(name: str) -> bool:
    """Whether a relative path that was read from a file leads out of its folder, or names the folder itself.

    The rules are the same on all systems: a backslash separates folders, and C: is a drive.
    """
    parts = re.split(r"[/\\]", name)
    return "\0" in name or bool(PureWindowsPath(name).anchor) or ".." in parts or set(parts) <= {"", "."}
