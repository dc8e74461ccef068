from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hdgan.editor.session import Session
from hdgan.editor.shelf import Shelf
from hdgan.editor.studio import Studio, open_studio
from hdgan.editor.tabs import KEPT_HOURS, MEMORY, Tabs
from hdgan.errors import HdganError


class Clock:
    hours = 0.0

    def __call__(self) -> float:
        return self.hours * 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tabs(studio: Studio, clock: Clock) -> Tabs:
    return Tabs(studio, clock)


def restyle(session: Session) -> None:
    session.restyle_all()


def nothing(session: Session) -> None:
    pass


def test_a_tab_begins_with_the_first_sample(tabs: Tabs, studio: Studio) -> None:
    view = tabs.begin("a")
    assert view["key"] == "a"
    assert view["size"] == studio.sample(0).size
    assert len(view["legend"]) == 4
    assert (view["message"], view["name"], view["canUndo"]) == ("", "picture", False)


def test_tabs_share_nothing(tabs: Tabs) -> None:
    pictures = [tabs.begin(key)["picture"] for key in "ab"]
    assert pictures[0] == pictures[1]
    edited = tabs.answer("a", restyle)
    assert edited["picture"] != pictures[0]
    other = tabs.answer("b", nothing)
    assert (other["picture"], other["canUndo"]) == (pictures[1], False)


def test_a_page_that_is_loaded_anew_goes_on_where_its_tab_was(tabs: Tabs) -> None:
    tabs.begin("a")
    edited = tabs.answer("a", restyle)
    again = tabs.begin("b", former="a")
    same = ("picture", "ids", "canUndo", "dirty")
    assert [again[part] for part in same] == [edited[part] for part in same]
    assert (again["key"], again["name"], again["message"]) == ("b", "picture", "")
    assert again["legend"]

    copy = tabs.begin("c", former="a")
    assert not copy["canUndo"]
    assert "no longer has what this tab showed" in copy["message"]
    assert tabs.answer("b", nothing)["canUndo"]


@pytest.mark.parametrize("memory", [MEMORY, 0])
def test_what_is_used_is_kept_and_what_is_not_is_closed(studio: Studio, clock: Clock, memory: int) -> None:
    tabs = Tabs(studio, clock, memory)
    for key in ("used", "unused"):
        tabs.begin(key)
        tabs.answer(key, restyle)
    for clock.hours in np.linspace(0, KEPT_HOURS, 5) + 1:
        assert tabs.answer("used", nothing)["canUndo"]
    assert list(tabs._tabs) == ["used"]
    view = tabs.answer("unused", nothing, serial=7)
    assert "not used for 24 hours" in view["message"]
    assert "Reload the page" in view["message"]
    assert (view["serial"], view["dirty"]) == (7, False)


def in_memory(tabs: Tabs) -> list[str]:
    return [key for key, tab in tabs._tabs.items() if tab.page is not None]


def test_documents_that_do_not_fit_into_memory_wait_on_disk(studio: Studio, tmp_path: Path) -> None:
    tabs = Tabs(studio, memory=0, folder=tmp_path)
    keys = [f"tab {number}" for number in range(50)]
    edited = {}
    for key in keys:
        tabs.begin(key)
        tabs.answer(key, restyle)
        tabs.answer(key, lambda session: session.brush([(8, 8)], 9, 3))
        edited[key] = tabs.answer(key, lambda session: session.undo())
        assert in_memory(tabs) == [key]
    same = ("picture", "label", "ids", "canUndo", "canRedo", "dirty", "opening", "selected", "size", "notes")
    for key in keys:
        again = tabs.answer(key, nothing)
        assert [again[part] for part in same] == [edited[key][part] for part in same]
        assert "name" not in again  # the user may be typing one
    assert tabs.answer(keys[0], lambda session: session.redo())["selected"] is None
    view = tabs.begin("anew", former=keys[1])
    assert (view["picture"], view["name"], view["message"]) == (edited[keys[1]]["picture"], "picture", "")
    assert "no longer has" in tabs.answer(keys[1], nothing)["message"]
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_as_many_documents_stay_in_memory_as_fit(studio: Studio) -> None:
    tabs = Tabs(studio)
    tabs.begin("a")
    tabs = Tabs(studio, memory=2 * tabs._tabs["a"].n_bytes)
    for key in "abc":
        tabs.begin(key)
    assert in_memory(tabs) == ["b", "c"]
    tabs.answer("a", nothing)
    assert in_memory(tabs) == ["c", "a"]


def test_saved_pictures_may_be_written_again_from_disk(studio: Studio) -> None:
    tabs = Tabs(studio, memory=0)
    for key in "ab":
        tabs.begin(key)
    tabs.answer("a", lambda session: str(session.save("mine")))
    tabs.answer("a", restyle)
    tabs.answer("b", nothing)
    view = tabs.answer("a", lambda session: str(session.save("mine")))
    assert (view["message"], view["dirty"]) == ("", False)


def fill_disk(tabs: Tabs) -> sqlite3.Connection:
    """Let the file of tabs not grow any more."""
    database = tabs._shelf._opened()
    with database:
        database.execute("INSERT INTO pages VALUES ('filler', zeroblob(3900))")  # of a block of 4096
    database.execute("PRAGMA max_page_count = 1")
    return database


def test_a_full_disk_is_told_once_and_loses_nothing(studio: Studio, tmp_path: Path) -> None:
    tabs = Tabs(studio, memory=0, folder=tmp_path)
    database = fill_disk(tabs)
    tabs.begin("a")
    edited = tabs.answer("a", restyle)
    full = tabs.begin("b")
    assert full["size"] == studio.sample(0).size
    assert f"cannot be kept in a file in {tmp_path} (database or disk is full)" in full["message"]
    assert "TMPDIR" in full["message"]
    assert full["notes"][-1] == full["message"]
    assert in_memory(tabs) == ["a", "b"]
    later = tabs.answer("a", nothing)
    assert (later["message"], later["notes"][-1]) == ("", full["message"])
    assert (later["picture"], later["canUndo"]) == (edited["picture"], True)
    database.execute("PRAGMA max_page_count = 100000")
    assert tabs.answer("b", nothing)["notes"] == studio.notes
    assert in_memory(tabs) == ["b"]
    assert tabs.answer("a", nothing)["canUndo"]


def test_a_page_that_cannot_be_read_is_told_and_stays(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(shelf: Shelf, key: str) -> None:
        raise HdganError("disk I/O error")

    tabs = Tabs(studio, memory=0)
    tabs.begin("a")
    tabs.answer("a", restyle)
    tabs.begin("b")
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "take", fail)
        assert tabs.answer("a", nothing, 3) == {"message": "disk I/O error", "done": "", "serial": 3}
        assert "disk I/O error" in tabs.begin("c", former="a")["message"]
    assert tabs.answer("a", nothing)["canUndo"]


def test_tabs_may_act_at_the_same_time(studio: Studio) -> None:
    tabs = Tabs(studio, memory=0)
    for key in "abcd":
        tabs.begin(key)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: tabs.answer("abcd"[number % 4], restyle), range(20)))
    for key in "abcd":
        undone = [tabs.answer(key, lambda session: session.undo())["canUndo"] for _ in range(5)]
        assert undone == [True] * 4 + [False]


def test_a_server_that_was_started_anew_says_so(studio: Studio) -> None:
    view = Tabs(studio).begin("b", former="of an earlier server")
    assert "started anew" in view["message"]
    assert view["size"] == studio.sample(0).size


def test_without_samples_a_tab_begins_empty(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tabs = Tabs(open_studio(run, root=tmp_path / "gone", device="cpu"))
    view = tabs.begin("a")
    assert (view["size"], view["message"]) == (None, "")
    assert "no picture is open" in tabs.answer("a", lambda session: session.undo())["message"]
    assert tabs.begin("b", former="a")["message"] == ""
