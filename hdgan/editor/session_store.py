"""The sessions of all tabs, each found by the key of its tab. They stay in memory or, if that is full, on disk."""

from __future__ import annotations

import pickle
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hdgan.editor.context import EditorContext
from hdgan.editor.session import Session
from hdgan.editor.session_view import SessionView, SupersededError, describe_classes
from hdgan.errors import HdganError

MAX_IN_MEMORY = 4
"""Sessions that stay in memory. Those that were used longest ago move to disk."""
SESSION_HOURS = 24
"""A session is closed when it was not used for this time. A closed tab looks the same as a lost connection."""
_EXPIRED = (
    "The editor no longer has what this tab showed: the editor was restarted, or the tab was not used for "
    f"{SESSION_HOURS} hours. Open a saved document to continue with it."
)


@dataclass
class _OpenSession:
    view: SessionView | None
    """None while it is on disk."""
    last_used: float


class SessionStore:
    """The sessions of all tabs, which share only the context. Threads take turns.

    Args:
        context: what all sessions share.
        clock: returns seconds, counted from any start.
        max_in_memory: as `MAX_IN_MEMORY`.
    """

    def __init__(
        self, context: EditorContext, clock: Callable[[], float] = time.monotonic, max_in_memory: int = MAX_IN_MEMORY
    ) -> None:
        self.context = context
        self._clock = clock
        self._max_in_memory = max_in_memory
        self._disk = DiskStore(context)
        self._entries: OrderedDict[str, _OpenSession] = OrderedDict()  # the one that was used longest ago comes first
        self._disk_error = ""
        self._lock = threading.Lock()
        self._waiting = 0  # requests of users
        self._counting = threading.Lock()

    def connect(self, key: str, previous: str | None = None) -> dict[str, Any]:
        """What a page shows when it is loaded: the session that its tab had before the reload, else the first sample.

        Args:
            key: of the tab from now on.
            previous: key of the tab before the reload. It is not valid any more.
        """
        with self._turn():
            known, lost = None, ""
            try:
                known = self._take(previous) if previous else None
                lost = _EXPIRED if previous and known is None else ""
            except HdganError as error:
                lost = str(error)
            view = SessionView(known.session if known else Session(self.context))
            content = view.run(_open_first_sample)
            content["message"] = content["message"] or lost
            return self._put(key, view, content) | {"key": key, "classes": describe_classes(self.context)}

    def run(self, key: str, action: Callable[[Session], str | None], serial: int | None = None) -> dict[str, Any]:
        """As `SessionView.run`, for the session of a tab. If it has none, the message says so."""
        with self._turn():
            return self._answer(key, lambda view: view.run(action, serial)) | {"serial": serial}

    def refine(self, key: str) -> dict[str, Any]:
        """As `SessionView.refine`, for the session of a tab. Requests of users, from whatever tab, do not wait for it:
        it ends as soon as one arrives."""

        def check() -> None:
            if self._waiting:
                raise SupersededError

        with self._lock:
            return {"preview": False} | self._answer(key, lambda view: view.refine(check))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the requests that came before, but for no picture that only refines a preview."""
        with self._counting:
            self._waiting += 1
        with self._lock:
            with self._counting:
                self._waiting -= 1
            yield

    def _answer(self, key: str, answer: Callable[[SessionView], dict[str, Any]]) -> dict[str, Any]:
        try:
            view = self._take(key)
        except HdganError as error:
            return {"message": str(error), "confirmation": ""}
        if view is None:
            return {"message": f"{_EXPIRED} Reload the page.", "confirmation": "", "unsaved": False}
        return self._put(key, view, answer(view))

    def _take(self, key: str) -> SessionView | None:
        """Remove a session from the store and return it; None if there is none.

        Raises:
            HdganError: it cannot be read from disk. It is not removed then.
        """
        self._close_expired()
        if key not in self._entries:
            return None
        view = self._entries[key].view or self._disk.load(key)
        self._close(key)
        return view

    def _put(self, key: str, view: SessionView, content: dict[str, Any]) -> dict[str, Any]:
        """Store a session that was just used, and add to its content why others cannot move to disk."""
        self._entries[key] = _OpenSession(view, self._clock())
        known, self._disk_error = self._disk_error, self._free_memory()
        if not self._disk_error:
            return content
        message = content.get("message") or (self._disk_error if self._disk_error != known else "")
        return content | {"message": message, "notes": [*self.context.notes, self._disk_error]}

    def _free_memory(self) -> str:
        """Move the sessions that were used longest ago to disk. Returns why that fails, if it does."""
        in_memory = [(key, entry, entry.view) for key, entry in self._entries.items() if entry.view is not None]
        for key, entry, view in in_memory[: -self._max_in_memory]:
            try:
                self._disk.save(key, view)
            except HdganError as error:
                return str(error)
            entry.view = None
        return ""

    def _close_expired(self) -> None:
        oldest = self._clock() - SESSION_HOURS * 3600
        while self._entries and next(iter(self._entries.values())).last_used < oldest:
            self._close(next(iter(self._entries)))

    def _close(self, key: str) -> None:
        if self._entries.pop(key).view is None:
            self._disk.delete(key)


def _open_first_sample(session: Session) -> None:
    if session.history is None and session.context.samples:
        session.open_sample(0)


class DiskStore:
    """Sessions in a temporary file that no other program can find: SQLite deletes its name as soon as it is open.

    So the system frees the file when this process ends, for whatever reason. Only this process can have written what is
    read, which is why it can be a pickle.

    Args:
        context: of all sessions; it stays in memory.
    """

    def __init__(self, context: EditorContext) -> None:
        self._context = context
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        # Nobody reads the file after a crash, so it needs no journal on disk.
        self._database.executescript(
            "PRAGMA temp_store = FILE; CREATE TEMP TABLE views (key TEXT PRIMARY KEY, content BLOB);"
            "PRAGMA temp.journal_mode = MEMORY"
        )

    def save(self, key: str, view: SessionView) -> None:
        """Write a session, completely or not at all.

        Raises:
            HdganError: the disk is full or cannot be written.
        """
        with self._one_line_errors(), self._database:
            content = pickle.dumps(view, pickle.HIGHEST_PROTOCOL)
            self._database.execute("INSERT OR REPLACE INTO views VALUES (?, ?)", (key, content))

    def load(self, key: str) -> SessionView:
        """Read a session that was saved. It stays on disk.

        Raises:
            HdganError: the disk cannot be read.
        """
        with self._one_line_errors():
            (content,) = self._database.execute("SELECT content FROM views WHERE key = ?", (key,)).fetchone()
            view: SessionView = pickle.loads(content)
        view.session.context = self._context
        return view

    def delete(self, key: str) -> None:
        """Delete a session. If that fails it takes space until the process ends, and has no other effect."""
        with suppress(sqlite3.Error), self._database:
            self._database.execute("DELETE FROM views WHERE key = ?", (key,))

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, MemoryError, OverflowError) as error:
            reason = str(error) or "out of memory"
            raise HdganError(
                f"unused tabs cannot be moved to a temporary file ({reason}) and stay in memory: free space in the "
                "folder for temporary files (TMPDIR, else /var/tmp), or save your work and restart the editor with the "
                "environment variable TMPDIR set to another folder"
            ) from error
