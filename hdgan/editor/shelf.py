"""Pages of tabs on disk, while others are in use."""

from __future__ import annotations

import io
import os
import pickle
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hdgan.editor.page import Page
from hdgan.editor.studio import Studio
from hdgan.errors import HdganError


class Shelf:
    """Keeps pages of tabs, with their documents and all that can be undone, in a file.

    The file is made when it is first needed. As soon as it is open its name is deleted, so no other program finds it,
    and the system frees it when this process ends, however that comes about. What is read was written by this process,
    which is why it may be a pickle.

    Args:
        studio: of all pages; it stays in memory.
        folder: where the file is made, in a folder of its own that only this user may enter.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self._studio = studio
        self._folder = folder
        self._database: sqlite3.Connection | None = None

    def put(self, key: str, page: Page) -> None:
        """Keep a page; it is there whole or not at all.

        Raises:
            HdganError: the disk is full or cannot be written.
        """
        with self._explained():
            content = io.BytesIO()
            _Pickler(content, self._studio).dump(page)
            with self._opened() as database:
                database.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (key, content.getbuffer()))

    def take(self, key: str) -> Page:
        """Get a page that was put here. It stays until it is dropped or replaced.

        Raises:
            HdganError: the disk cannot be read.
        """
        with self._explained():
            (content,) = self._opened().execute("SELECT content FROM pages WHERE key = ?", (key,)).fetchone()
            page = _Unpickler(io.BytesIO(content), self._studio).load()
        assert isinstance(page, Page)
        return page

    def drop(self, key: str) -> None:
        """Forget a page. One that cannot be deleted takes room until the process ends, and does no other harm."""
        with suppress(sqlite3.Error), self._opened() as database:
            database.execute("DELETE FROM pages WHERE key = ?", (key,))

    def _opened(self) -> sqlite3.Connection:
        """The database; as a context manager, a transaction."""
        if self._database is None:
            folder = tempfile.TemporaryDirectory(prefix="hdgan-edit-", dir=self._folder)  # for this user alone
            database = sqlite3.connect(Path(folder.name) / "tabs.sqlite", check_same_thread=False)
            weakref.finalize(self, _close, database, folder)
            # No file beside it, which would need a name, and no waiting for the disk: nobody reads it after a crash.
            database.executescript("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY")
            database.execute("CREATE TABLE pages (key TEXT PRIMARY KEY, content BLOB)")
            database.commit()
            if os.name == "posix":  # elsewhere what is open cannot be deleted
                folder.cleanup()
            self._database = database
        return self._database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, MemoryError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            raise HdganError(
                f"tabs that are not in use cannot be kept in a file in {self._folder} ({reason}); they stay in memory: "
                "free space there, save your work, or close tabs and start the editor anew with the environment "
                "variable TMPDIR set to another folder"
            ) from error


def default_folder() -> Path:
    """TMPDIR, else /var/tmp, which lies on a disk where /tmp may lie in memory, else the system's temporary folder."""
    on_disk = Path("/var/tmp")
    usable = "TMPDIR" not in os.environ and os.access(on_disk, os.W_OK | os.X_OK)
    return on_disk if usable else Path(tempfile.gettempdir())


def _close(database: sqlite3.Connection, folder: tempfile.TemporaryDirectory[str]) -> None:
    database.close()
    folder.cleanup()


class _Pickler(pickle.Pickler):
    """Leaves the studio out."""

    def __init__(self, file: io.BytesIO, studio: Studio) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._studio = studio

    def persistent_id(self, value: Any) -> str | None:
        return "studio" if value is self._studio else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, studio: Studio) -> None:
        super().__init__(file)
        self._studio = studio

    def persistent_load(self, name: Any) -> Studio:
        return self._studio
