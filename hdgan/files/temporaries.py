"""Temporary files and folders next to their targets, and the removal of those left by killed processes.

Whoever writes into a folder holds a shared lock on it. A process that gets the exclusive lock knows that nobody is
writing there, so everything with a temporary name was left by a dead process and is removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hdgan.config.urls import is_url
from hdgan.errors import HdganError

try:
    import fcntl
except ImportError:  # Windows, where nothing is removed
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.hdtmp(\.old)?", re.DOTALL)
_EARLIER_TEMPORARY = re.compile(r"\.(?:(.+)\.[0-9a-f]{8}|(step-\d+))\.tmp(?:\.old)?", re.DOTALL)
"""The names that hdgan 0.1.0 used. Other programs may use such names too."""
_tidied: set[Path] = set()
"""Folders from which this process has removed dead temporaries."""
_tidying = threading.Lock()


def temporary_name(path: Path) -> Path:
    """A new name next to `path`. `tempfile` is not used, since its files have restricted permissions."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.hdtmp")


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Create a folder and remove what dead processes left in it; during the block, nobody removes what is written
    there.

    Raises:
        HdganError: the folder is a URL.
    """
    if is_url(folder):
        raise HdganError(f"{folder} is a URL, and files are only written on this machine: give a local folder")
    folder.mkdir(parents=True, exist_ok=True)
    absolute = folder.absolute()
    with _tidying:
        if absolute not in _tidied and remove_dead(folder):
            _tidied.add(absolute)
    with _lock(folder):
        yield


def remove_dead(folder: Path, earlier: Callable[[Path], bool] = lambda target: False) -> bool:
    """Remove what killed processes had begun to write in a folder, unless another process is writing there.

    The first write of a process into a folder does this automatically.

    Args:
        folder: searched without its subfolders; links in it are left alone.
        earlier: says whether hdgan 0.1.0, whose temporary names were less specific, may have started to write a target
            here.

    Returns:
        Whether the folder was searched.
    """
    with _lock(folder, alone=True) as alone:
        for entry in list(os.scandir(folder)) if alone else []:
            path = Path(entry.path)
            target = _target_of(path, earlier)
            if target is None or entry.is_symlink():
                continue
            if path.suffix == ".old" and not os.path.lexists(target):
                path.rename(target)  # the process was killed while it replaced a folder: this is the old one
            elif entry.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return alone


def remove_dead_below(folder: Path, earlier: Callable[[Path], bool]) -> None:
    """Call `remove_dead` for a folder, if it exists, and all of its subfolders except those behind links."""
    for path, _, _ in os.walk(folder):
        remove_dead(Path(path), earlier)


@contextmanager
def _lock(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Take a shared lock on a folder or, with `alone`, try to take an exclusive one; yields whether it was taken.

    The system releases the lock when the process ends. Some file systems have no locks; nothing is removed on those.
    """
    handle = None
    try:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        locked = handle is not None
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        if handle is not None:
            os.close(handle)


def _target_of(temporary: Path, earlier: Callable[[Path], bool]) -> Path | None:
    """The target of a temporary file or folder, which follows from its name; None for any other name."""
    match = _TEMPORARY.fullmatch(temporary.name)
    if match:
        return temporary.with_name(match[1])
    match = _EARLIER_TEMPORARY.fullmatch(temporary.name)
    target = temporary.with_name(match[1] or match[2]) if match else None
    return target if target is not None and earlier(target) else None
