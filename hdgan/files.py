"""Writing files so that a crash at any moment leaves the old content or the new, never half of it."""

from __future__ import annotations

import ctypes
import filecmp
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hdgan.errors import HdganError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' fcntl.h and linux/fs.h
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


@contextmanager
def atomic_file(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is synced to disk and renamed over `path`.

    Args:
        path: the file.
        new: never take the place of a file, not even of one that another process completes at this moment.

    Raises:
        HdganError: the folder is not writable, the disk is full, or with `new` the file exists; `path` keeps its old
            content.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            yield temporary
            temporary.chmod(mode)  # a library that writes by way of a file of its own leaves that file's
            _sync(temporary)
            if new:
                _claim(temporary, path)
            else:
                temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit all of it is synced and renamed to `path`.

    An existing folder `path` is replaced.

    Raises:
        HdganError: the parent is not writable or the disk is full; `path` keeps its old content.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.mkdir()
        try:
            yield temporary
            for entry in (temporary, *temporary.rglob("*")):
                _sync(entry)
            _replace_folder(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_files(folder: str | Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit the files in it come into `folder`, which may exist, all at once.

    A folder that does not exist appears with all of them. Into one that exists they go one after another, `last` at the
    end: without it a set is not complete. After a kill between two files, a repeat completes the set: a file that is
    there already and has the same bytes is kept.

    Args:
        folder: where they go.
        last: name of the file that stands for the set.

    Raises:
        HdganError: the folder is not writable or the disk is full; or a file of this name exists, which is kept, and
            that of no other is written after it.
    """
    folder = Path(folder)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(folder)
        temporary.mkdir()
        try:
            yield temporary
            files = sorted(temporary.iterdir(), key=lambda file: (file.name == last, file.name))
            for entry in (*files, temporary):
                _sync(entry)
            if not _moved(temporary, folder):
                for file in files:
                    _claim(file, folder / file.name, same=file.name != last)
                _sync(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def target_of(temporary: Path) -> Path | None:
    """The file that `atomic_file` writes by way of `temporary`, from the names alone; None if it never would."""
    match = _TEMPORARY.fullmatch(temporary.name)
    return temporary.with_name(match[1]) if match else None


def require_file(path: Path, error: type[HdganError] = HdganError) -> None:
    """Refuse what is not an ordinary file before it is opened: reading a pipe or a device could wait for ever.

    Args:
        path: of a file that is to be read; links are followed.
        error: what is raised.

    Raises:
        HdganError: of the given class, if there is no such file, or it is a folder, pipe, device or socket.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise error(f"{path} does not exist: check the path") from None
    except (OSError, ValueError) as problem:  # a loop of links, a name that is too long or holds a NUL
        raise error(f"{path!s:.300} cannot be opened ({getattr(problem, 'strerror', None) or problem})") from problem
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise error(f"{path} is {kind}, not a file: give an ordinary file")


def leads_out(name: str) -> bool:
    """Whether a name that a file gives, put behind a folder, leads out of that folder, or names the folder itself."""
    parts = re.split(r"[/\\]", name)
    return "\0" in name or bool(Path(name).anchor) or ".." in parts or set(parts) <= {"", "."}


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write a picture atomically as PNG.

    Raises:
        HdganError: as `atomic_file`.
    """
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


def _temporary(path: Path) -> Path:
    """A new name beside `path`; what is made there has ordinary permissions, which `tempfile` withholds."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _replace_folder(new: Path, path: Path) -> None:
    """Move `new` to `path`; the old folder there, if any, is then `new`, or gone.

    On Linux' usual file systems two folders change places in one step. Elsewhere the old one is moved aside first, so
    that at any moment one of the two is whole.
    """
    if not path.is_dir():
        new.replace(path)
    elif not _exchange(new, path):
        old = path.with_name(f"{new.name}.old")
        path.replace(old)
        try:
            new.replace(path)
        except OSError:
            old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _moved(new: Path, folder: Path) -> bool:
    """Move a folder to where none is, or an empty one. False, and nothing has changed, where there is one."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True


def _claim(temporary: Path, path: Path, *, same: bool = False) -> None:
    """Give a complete file its name, which must be free, or with `same` stand for the same bytes.

    Raises:
        HdganError: the name is taken.
    """
    try:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.touch(exist_ok=False)
            temporary.replace(path)
    except FileExistsError:
        if not (same and path.is_file() and filecmp.cmp(temporary, path, shallow=False)):
            raise HdganError(f"{path} exists already: name another --out, or delete it") from None


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step. False, and nothing has changed, where the system cannot do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    return rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise HdganError(f"cannot write {path}: {reason}; free space or choose another folder, then repeat") from error


def _sync(path: Path) -> None:
    """Flush a file or folder to disk (folders cannot be opened on Windows, and need not be)."""
    if path.is_dir() and os.name == "nt":
        return
    # Windows syncs only what is open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
