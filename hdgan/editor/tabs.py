"""The pages of all tabs, each found by its tab's key."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from hdgan.editor.page import Page, legend_entries
from hdgan.editor.session import Session
from hdgan.editor.studio import Studio

KEPT = 32
"""Tabs whose documents are kept; of more the one used longest ago is closed."""
KEPT_HOURS = 24
"""Since a tab was last used. A tab that was closed cannot be told from one whose connection is lost."""


class Tabs:
    """What the tabs of an editor show; they share nothing but the studio. For one thread at a time.

    Args:
        studio: what their sessions share.
        clock: seconds, from any start.
    """

    def __init__(self, studio: Studio, clock: Callable[[], float] = time.monotonic) -> None:
        self.studio = studio
        self._clock = clock
        self._pages: OrderedDict[str, tuple[Page, float]] = OrderedDict()  # and when it was last used

    def begin(self, key: str, former: str | None = None) -> dict[str, Any]:
        """What a page shows that was just loaded: what its tab showed before a reload, else the first sample.

        Args:
            key: of the tab from now on.
            former: of the tab before; nobody can use it any more.
        """
        page = self._take(former) if former else None
        if page is None:
            page = Page(Session(self.studio))
            view = page.answer(lambda session: session.open_sample(0) if self.studio.samples else None)
            if former and not view["message"]:
                view["message"] = _GONE
        else:
            view = page.answer(lambda session: None, loaded=True)
        self._put(key, page)
        return view | {"key": key, "legend": legend_entries(self.studio)}

    def answer(self, key: str, do: Callable[[Session], str | None], serial: int | None = None) -> dict[str, Any]:
        """As `Page.answer`, for the page of a tab; one that has none is told so."""
        page = self._take(key)
        if page is None:
            return {"message": f"{_GONE} Reload the page.", "done": "", "dirty": False, "serial": serial}
        self._put(key, page)
        return page.answer(do, serial)

    def _take(self, key: str) -> Page | None:
        self._close_unused()
        page, _ = self._pages.pop(key, (None, 0.0))
        return page

    def _put(self, key: str, page: Page) -> None:
        self._pages[key] = page, self._clock()
        self._close_unused()

    def _close_unused(self) -> None:
        oldest = self._clock() - KEPT_HOURS * 3600
        while self._pages and (len(self._pages) > KEPT or next(iter(self._pages.values()))[1] < oldest):
            self._pages.popitem(last=False)


_GONE = (
    "The editor no longer has what this tab showed: it was started anew since, or the tab was not used for "
    f"{KEPT_HOURS} hours, or {KEPT} others were used after it. What was saved can be opened again."
)
