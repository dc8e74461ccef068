"""Writing files so that a crash at any moment leaves the old content or the new, never half of it.

What is being written has a temporary name beside its target until it is complete and on the disk.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hdgan.config.options import option
from hdgan.errors import HdganError
from hdgan.files.temporaries import temporary_name, writing_into

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' fcntl.h and linux/fs.h


@contextmanager
def atomic_file(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on a clean exit it is synced to disk and renamed over `path`.

    Args:
        path: the file.
        new: never replace a file, not even one that another process completes at this moment.

    Raises:
        HdganError: the folder is not writable, the disk is full, or with `new` the file exists; `path` keeps its old
            content.
    """
    path = Path(path)
    with _explained(path), writing_into(path.parent):
        temporary = temporary_name(path)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        try:
            yield temporary
            temporary.chmod(mode)  # a library that replaces the file by one of its own leaves that file's mode
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
    """Yield a temporary folder next to `path`; on a clean exit all of it is synced and renamed to `path`.

    An existing folder `path` is replaced.

    Raises:
        HdganError: the parent is not writable or the disk is full; `path` keeps its old content.
    """
    path = Path(path)
    with _folder_beside(path) as temporary:
        yield temporary
        for entry in (temporary, *temporary.rglob("*")):
            _sync(entry)
        _replace_folder(temporary, path)
        _sync(path.parent)


@contextmanager
def new_files(folder: str | Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit the files in it are moved into `folder`: all of them, or none.

    A new folder appears with all files in it. An existing folder receives them one after another, ending with `last`,
    so a set without that file is incomplete. If the process is killed between two files, a repeat completes the set,
    since a file that already exists with the same bytes is kept.

    Args:
        folder: where the files go.
        last: name of the file that completes the set.

    Raises:
        HdganError: the folder is not writable, the disk is full, or another file of one of the names exists. That file
            is kept, and none is added.
    """
    folder = Path(folder)
    with _folder_beside(folder) as temporary:
        yield temporary
        files = sorted(temporary.iterdir(), key=lambda file: (file.name == last, file.name))
        for entry in (*files, temporary):
            _sync(entry)
        if not _moved(temporary, folder):
            _claim_all(files, folder, last)
            _sync(folder)
        _sync(folder.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder. If the process is killed meanwhile, nothing is left under the folder's name."""
    with _explained(path), writing_into(path.parent):
        shutil.rmtree(path.replace(temporary_name(path)), ignore_errors=True)


def rename_folder(path: Path, name: str) -> Path:
    """Give a folder another name, which nothing beside it has; returns its new path.

    Raises:
        HdganError: the folder that it is in is not writable.
    """
    with _explained(path), writing_into(path.parent):
        return path.rename(path.with_name(name))


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically as UTF-8.

    Raises:
        HdganError: as `atomic_file`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write an image atomically as PNG.

    Raises:
        HdganError: as `atomic_file`.
    """
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, which is removed in the end unless it was renamed."""
    with _explained(path), writing_into(path.parent):
        temporary = temporary_name(path)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Move `new` to `path`. An old folder at `path` is afterwards at `new`, or deleted.

    The usual file systems of Linux exchange two folders in one step. Elsewhere the old folder is moved aside first, so
    one of the two is complete at any moment.
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
    """Rename a folder unless the new name is taken by a folder with content; returns whether it was renamed."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True


def _claim_all(files: list[Path], folder: Path, last: str) -> None:
    """Move all files of a set into a folder, or none if a name is taken; `last` must be free."""
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
    """Give a complete file its name, which must be free or, with `same`, belong to a file of the same bytes.

    Returns:
        Whether the name was free.

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
            raise HdganError(f"{path} already exists: choose another {option('out')}, or delete it") from None
        return False
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; returns False, with nothing changed, where the system cannot do that."""
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
    """Why the system refused to write, if an error says so. Libraries word this differently."""
    if isinstance(error, HdganError):
        return None
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = str(error)
    if type(error).__name__ == "SafetensorError" and "I/O error" in text:
        return text[text.index("I/O error") :]
    if isinstance(error, RuntimeError) and any(words in text for words in ("inline_container", "iostream error")):
        cause = error.__context__  # PyTorch's writer raises its own error while it handles that of the file
        return _why_not_written(cause) if isinstance(cause, OSError) else "it could not be written completely"
    return None


def _sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened, and need not be
        return
    # Windows syncs only what is open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
