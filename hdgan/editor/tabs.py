"""The pages of all tabs, each found by its tab's key."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.editor.page import Page, legend_entries
from hdgan.editor.session import Session
from hdgan.editor.shelf import Shelf, default_folder
from hdgan.editor.studio import Studio
from hdgan.errors import HdganError

MEMORY = 512 * 2**20
"""Bytes that the documents of all tabs may take in memory; those that were used longest ago wait on disk."""
KEPT_HOURS = 24
"""Since a tab was last used. A tab that was closed cannot be told from one whose connection is lost."""


@dataclass
class _Tab:
    page: Page | None
    """None while it is on the shelf."""
    n_bytes: int
    """That the page takes in memory."""
    used: float
    """When it last was, by the clock."""


class Tabs:
    """What the tabs of an editor show; they share nothing but the studio. Threads take turns.

    Args:
        studio: what their sessions share.
        clock: seconds, from any start.
        memory: as `MEMORY`.
        folder: where what is not in memory is kept; None chooses.
    """

    def __init__(
        self,
        studio: Studio,
        clock: Callable[[], float] = time.monotonic,
        memory: int = MEMORY,
        folder: Path | None = None,
    ) -> None:
        self.studio = studio
        self._clock = clock
        self._memory = memory
        self._shelf = Shelf(studio, folder or default_folder())
        self._tabs: OrderedDict[str, _Tab] = OrderedDict()  # the one used longest ago first
        self._full = ""  # why tabs stay in memory that should not
        self._lock = threading.Lock()

    def begin(self, key: str, former: str | None = None) -> dict[str, Any]:
        """What a page shows that was just loaded: what its tab showed before a reload, else the first sample.

        Args:
            key: of the tab from now on.
            former: of the tab before; nobody can use it any more.
        """
        with self._lock:
            lost = ""
            try:
                page = self._take(former) if former else None
                lost = _GONE if former and page is None else ""
            except HdganError as error:
                page, lost = None, str(error)
            if page is None:
                page = Page(Session(self.studio))
                view = page.answer(lambda session: session.open_sample(0) if self.studio.samples else None)
                view["message"] = view["message"] or lost
            else:
                view = page.answer(lambda session: None, loaded=True)
            return self._put(key, page, view) | {"key": key, "legend": legend_entries(self.studio)}

    def answer(self, key: str, do: Callable[[Session], str | None], serial: int | None = None) -> dict[str, Any]:
        """As `Page.answer`, for the page of a tab; one that has none is told so."""
        with self._lock:
            try:
                page = self._take(key)
            except HdganError as error:
                return {"message": str(error), "done": "", "serial": serial}
            if page is None:
                return {"message": f"{_GONE} Reload the page.", "done": "", "dirty": False, "serial": serial}
            return self._put(key, page, page.answer(do, serial))

    def _take(self, key: str) -> Page | None:
        """The page of a tab, which is no longer among the others; None if there is none.

        Raises:
            HdganError: it cannot be read, and stays where it is.
        """
        self._close_unused()
        tab = self._tabs.get(key)
        if tab is None:
            return None
        page = tab.page or self._shelf.take(key)
        self._close(key)
        return page

    def _put(self, key: str, page: Page, view: dict[str, Any]) -> dict[str, Any]:
        """Note that a tab was just used, and say in its view where there is no room for others."""
        self._tabs[key] = _Tab(page, page.n_bytes, self._clock())
        before, self._full = self._full, self._make_room()
        if not self._full:
            return view
        told = {"notes": [*view.get("notes", self.studio.notes), self._full]}
        return view | told | ({"message": view["message"] or self._full} if self._full != before else {})

    def _make_room(self) -> str:
        """Put tabs on the shelf until the others fit into memory, but for the last. Returns why that fails."""
        in_memory = [(key, tab) for key, tab in self._tabs.items() if tab.page is not None]
        n_bytes = sum(tab.n_bytes for _, tab in in_memory)
        for key, tab in in_memory[:-1]:
            if n_bytes <= self._memory:
                break
            assert tab.page is not None
            try:
                self._shelf.put(key, tab.page)
            except HdganError as error:
                return str(error)
            tab.page = None
            n_bytes -= tab.n_bytes
        return ""

    def _close_unused(self) -> None:
        oldest = self._clock() - KEPT_HOURS * 3600
        while self._tabs:
            key, tab = next(iter(self._tabs.items()))
            if tab.used >= oldest:
                return
            self._close(key)

    def _close(self, key: str) -> None:
        if self._tabs.pop(key).page is None:
            self._shelf.drop(key)


_GONE = (
    "The editor no longer has what this tab showed: the editor was started anew since, or the tab was not used for "
    f"{KEPT_HOURS} hours. What was saved can be opened again."
)
