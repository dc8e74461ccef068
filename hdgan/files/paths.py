"""Writing files so that a crash at any moment leaves the old content or the new, never half of it.

What is being written has a name of its own beside its target, and a killed process leaves that behind. Whoever writes
into a folder holds a shared lock on it; who gets it alone knows that all such names there are dead, and removes them.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

try:
    import fcntl
except ImportError:  # Windows, where nothing is removed
    fcntl = None  # type: ignore[assignment]

from PIL import Image

from hdgan.config.options import option
from hdgan.errors import ConfigError, HdganError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' fcntl.h and linux/fs.h
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.hdtmp(\.old)?", re.DOTALL)
_EARLIER_TEMPORARY = re.compile(r"\.(?:(.+)\.[0-9a-f]{8}|(step-\d+))\.tmp(?:\.old)?", re.DOTALL)
"""As hdgan 0.1.0 had them, which other programs may have too."""
_tidied: set[Path] = set()
"""Folders from which this process has removed dead temporaries."""
_tidying = threading.Lock()


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
    with _explained(path), _writing_into(path.parent):
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
    with _explained(path), _writing_into(path.parent):
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
        HdganError: the folder is not writable or the disk is full; or a file of one of the names exists, which is
            kept, and none is added.
    """
    folder = Path(folder)
    with _explained(folder), _writing_into(folder.parent):
        temporary = _temporary(folder)
        temporary.mkdir()
        try:
            yield temporary
            files = sorted(temporary.iterdir(), key=lambda file: (file.name == last, file.name))
            for entry in (*files, temporary):
                _sync(entry)
            if not _moved(temporary, folder):
                _claim_all(files, folder, last)
                _sync(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def require_no_file(folder: Path, name: str) -> None:
    """Refuse a file, device or loop of links where a folder will be written, before the work for it begins.

    Args:
        folder: it need not exist.
        name: of the option that names it.

    Raises:
        ConfigError: something else than a folder is there.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{option(name)} {folder} exists and is no folder: choose another")


def remove_folder(path: Path) -> None:
    """Delete a folder so that a kill in the middle leaves no half of it under its name."""
    with _explained(path), _writing_into(path.parent):
        shutil.rmtree(path.replace(_temporary(path)), ignore_errors=True)


def remove_dead(folder: Path, earlier: Callable[[Path], bool] = lambda target: False) -> bool:
    """Remove what killed processes had begun to write in a folder, unless another process writes there now.

    The first write of a process into a folder does that by itself.

    Args:
        folder: looked through without its subfolders; links in it are left alone.
        earlier: of a file or folder, whether an earlier version of hdgan may have begun to write it here.

    Returns:
        Whether it was done.
    """
    with _lock(folder, alone=True) as alone:
        for entry in list(os.scandir(folder)) if alone else []:
            path = Path(entry.path)
            target = _target_of(path, earlier)
            if target is None or entry.is_symlink():
                continue
            if path.suffix == ".old" and not os.path.lexists(target):
                path.rename(target)  # killed while a folder was replaced: this is what was there
            elif entry.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return alone


def remove_dead_below(folder: Path, earlier: Callable[[Path], bool]) -> None:
    """`remove_dead` in a folder, if there is one, and in all of its subfolders but those behind links."""
    for path, _, _ in os.walk(folder):
        remove_dead(Path(path), earlier)


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
    """Whether a name that a file gives, put behind a folder, leads out of that folder, or names the folder itself.

    It is judged for all systems alike: backslashes part folders, and C: is a drive.
    """
    parts = re.split(r"[/\\]", name)
    return "\0" in name or bool(PureWindowsPath(name).anchor) or ".." in parts or set(parts) <= {"", "."}


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write a picture atomically as PNG.

    Raises:
        HdganError: as `atomic_file`.
    """
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """Make a folder, and hold off others that would remove what is written there until it has its name."""
    folder.mkdir(parents=True, exist_ok=True)
    absolute = folder.absolute()
    with _tidying:
        if absolute not in _tidied and remove_dead(folder):
            _tidied.add(absolute)
    with _lock(folder):
        yield


@contextmanager
def _lock(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Lock a folder together with others or, if that can be had at once, alone; yields whether it is locked.

    The lock goes with the process. Some file systems have none: then nothing is ever removed.
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
    """What is written by way of `temporary`, from the names alone; None if it has no name of ours."""
    match = _TEMPORARY.fullmatch(temporary.name)
    if match:
        return temporary.with_name(match[1])
    match = _EARLIER_TEMPORARY.fullmatch(temporary.name)
    target = temporary.with_name(match[1] or match[2]) if match else None
    return target if target is not None and earlier(target) else None


def _temporary(path: Path) -> Path:
    """A new name beside `path`; what is made there has ordinary permissions, which `tempfile` withholds."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.hdtmp")


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


def _claim_all(files: list[Path], folder: Path, last: str) -> None:
    """Give all files of a set their names in a folder, or if one is taken, none; `last` must be free."""
    added: list[Path] = []
    try:
        for file in files:
            path = folder / file.name
            if _claim(file, path, same=file.name != last):
                added.append(path)
    except (HdganError, OSError):
        for path in added:
            path.unlink(missing_ok=True)
        raise


def _claim(temporary: Path, path: Path, *, same: bool = False) -> bool:
    """Give a complete file its name, which must be free, or with `same` stand for the same bytes.

    Returns:
        Whether it was free.

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
        return False
    return True


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
    except Exception as error:
        reason = _why_not_written(error)
        if reason is None:
            raise
        raise HdganError(f"cannot write {path}: {reason}; free space or choose another folder, then repeat") from error


def _why_not_written(error: BaseException) -> str | None:
    """Why the system refused to write, if that is what an error says; libraries do so in words of their own."""
    if isinstance(error, HdganError):
        return None
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = str(error)
    if type(error).__name__ == "SafetensorError" and "I/O error" in text:
        return text[text.index("I/O error") :]
    if isinstance(error, RuntimeError) and any(words in text for words in ("inline_container", "iostream error")):
        cause = error.__context__  # of PyTorch's writer: what the file said
        return _why_not_written(cause) if isinstance(cause, OSError) else "it could not be written whole"
    return None


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
