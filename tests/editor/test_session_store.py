from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hdgan.editor.context import EditorContext
from hdgan.editor.session import Session
from hdgan.editor.session_store import MAX_IN_MEMORY, SESSION_HOURS, DiskStore, SessionStore
from hdgan.errors import HdganError

from .conftest import open_run


class Clock:
    hours = 0.0

    def __call__(self) -> float:
        return self.hours * 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(context: EditorContext, clock: Clock) -> SessionStore:
    return SessionStore(context, clock)


def restyle(session: Session) -> None:
    session.randomize()


def nothing(session: Session) -> None:
    pass


def test_a_tab_begins_with_the_first_sample(store: SessionStore, context: EditorContext) -> None:
    view = store.connect("a")
    assert view["key"] == "a"
    assert view["size"] == context.sample(0).size
    assert len(view["classes"]) == 4
    assert (view["message"], view["name"], view["canUndo"]) == ("", "picture", False)


def test_tabs_share_nothing(store: SessionStore) -> None:
    pictures = [store.connect(key)["image"] for key in "ab"]
    assert pictures[0] == pictures[1]
    edited = store.run("a", restyle)
    assert edited["image"] != pictures[0]
    other = store.run("b", nothing)
    assert (other["image"], other["canUndo"]) == (pictures[1], False)


def test_a_reloaded_page_continues_the_session_of_its_tab(store: SessionStore) -> None:
    store.connect("a")
    edited = store.run("a", restyle)
    again = store.connect("b", previous="a")
    same = ("image", "ids", "canUndo", "unsaved")
    assert [again[part] for part in same] == [edited[part] for part in same]
    assert (again["key"], again["name"], again["message"]) == ("b", "picture", "")
    assert again["classes"]

    copy = store.connect("c", previous="a")
    assert not copy["canUndo"]
    assert "no longer has what this tab showed" in copy["message"]
    assert store.run("b", nothing)["canUndo"]


@pytest.mark.parametrize("max_in_memory", [MAX_IN_MEMORY, 1])
def test_unused_sessions_are_closed(context: EditorContext, clock: Clock, max_in_memory: int) -> None:
    store = SessionStore(context, clock, max_in_memory)
    for key in ("used", "unused"):
        store.connect(key)
        store.run(key, restyle)
    for clock.hours in np.linspace(0, SESSION_HOURS, 5) + 1:
        assert store.run("used", nothing)["canUndo"]
    assert list(store._entries) == ["used"]
    view = store.run("unused", nothing, serial=7)
    assert "not used for 24 hours" in view["message"]
    assert "Reload the page" in view["message"]
    assert (view["serial"], view["unsaved"]) == (7, False)


def in_memory(store: SessionStore) -> list[str]:
    return [key for key, entry in store._entries.items() if entry.view is not None]


def test_sessions_continue_from_disk(context: EditorContext) -> None:
    store = SessionStore(context, max_in_memory=1)
    keys = [f"tab {number}" for number in range(50)]
    edited = {}
    for key in keys:
        store.connect(key)
        store.run(key, restyle)
        store.run(key, lambda session: session.brush([(8, 8)], 9, 3))
        edited[key] = store.run(key, lambda session: session.undo())
        assert in_memory(store) == [key]
    same = ("image", "label", "ids", "canUndo", "canRedo", "unsaved", "document", "selected", "size", "notes")
    for key in keys:
        again = store.run(key, nothing)
        assert [again[part] for part in same] == [edited[key][part] for part in same]
        assert "name" not in again  # the user may be typing one
    assert store.run(keys[0], lambda session: session.redo())["selected"] is None
    view = store.connect("anew", previous=keys[1])
    assert (view["image"], view["name"], view["message"]) == (edited[keys[1]]["image"], "picture", "")
    assert "no longer has" in store.run(keys[1], nothing)["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_other_program_finds_the_file_on_disk(context: EditorContext) -> None:
    def temporary_files() -> dict[str, os.stat_result]:
        links = [link for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
        return {str(link.readlink()): link.stat() for link in links if "etilqs" in str(link.readlink())}

    disk = DiskStore(context)
    before = temporary_files()
    with disk._database:
        disk._database.execute("INSERT INTO views VALUES ('large', zeroblob(9000000))")
    ((name, status),) = (item for item in temporary_files().items() if item[0] not in before)
    assert name.endswith("(deleted)")
    assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    assert status.st_size >= 9_000_000


def test_the_sessions_used_last_stay_in_memory(context: EditorContext) -> None:
    store = SessionStore(context, max_in_memory=2)
    for key in "abc":
        store.connect(key)
    assert in_memory(store) == ["b", "c"]
    store.run("a", nothing)
    assert in_memory(store) == ["c", "a"]


def test_a_session_from_disk_can_overwrite_what_it_saved(context: EditorContext) -> None:
    store = SessionStore(context, max_in_memory=1)
    for key in "ab":
        store.connect(key)
    store.run("a", lambda session: str(session.save("mine")))
    store.run("a", restyle)
    store.run("b", nothing)
    view = store.run("a", lambda session: str(session.save("mine")))
    assert (view["message"], view["unsaved"]) == ("", False)


def fill_disk(store: SessionStore) -> sqlite3.Connection:
    """Keep the file of a store from growing."""
    database = store._disk._database
    with database:
        database.execute("INSERT INTO views VALUES ('filler', zeroblob(3900))")  # of a block of 4096
    database.execute("PRAGMA temp.max_page_count = 1")
    return database


def test_a_full_disk_is_reported_once_and_loses_nothing(context: EditorContext) -> None:
    store = SessionStore(context, max_in_memory=1)
    database = fill_disk(store)
    store.connect("a")
    edited = store.run("a", restyle)
    full = store.connect("b")
    assert full["size"] == context.sample(0).size
    assert "cannot be moved to a temporary file (database or disk is full)" in full["message"]
    assert "TMPDIR" in full["message"]
    assert full["notes"][-1] == full["message"]
    assert in_memory(store) == ["a", "b"]
    later = store.run("a", nothing)
    assert (later["message"], later["notes"][-1]) == ("", full["message"])
    assert (later["image"], later["canUndo"]) == (edited["image"], True)
    database.execute("PRAGMA temp.max_page_count = 100000")
    assert store.run("b", nothing)["notes"] == context.notes
    assert in_memory(store) == ["b"]
    assert store.run("a", nothing)["canUndo"]


def test_a_session_that_cannot_be_read_stays(context: EditorContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(disk: DiskStore, key: str) -> None:
        raise HdganError("disk I/O error")

    store = SessionStore(context, max_in_memory=1)
    store.connect("a")
    store.run("a", restyle)
    store.connect("b")
    with monkeypatch.context() as patch:
        patch.setattr(DiskStore, "load", fail)
        assert store.run("a", nothing, 3) == {"message": "disk I/O error", "confirmation": "", "serial": 3}
        assert "disk I/O error" in store.connect("c", previous="a")["message"]
    assert store.run("a", nothing)["canUndo"]


def test_tabs_can_act_at_the_same_time(context: EditorContext) -> None:
    store = SessionStore(context, max_in_memory=1)
    for key in "abcd":
        store.connect(key)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.run("abcd"[number % 4], restyle), range(20)))
    for key in "abcd":
        undone = [store.run(key, lambda session: session.undo())["canUndo"] for _ in range(5)]
        assert undone == [True] * 4 + [False]


def test_a_restarted_server_says_so(context: EditorContext) -> None:
    view = SessionStore(context).connect("b", previous="of an earlier server")
    assert "restarted" in view["message"]
    assert view["size"] == context.sample(0).size


def test_without_samples_a_tab_begins_empty(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = SessionStore(open_run(run, root=tmp_path / "gone"))
    view = store.connect("a")
    assert (view["size"], view["message"]) == (None, "")
    assert "no image is open" in store.run("a", lambda session: session.undo())["message"]
    assert store.connect("b", previous="a")["message"] == ""


def test_an_edit_does_not_wait_for_the_image_of_a_preview(
    previewing: EditorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever tab it comes from."""
    begun = threading.Event()

    def endless(preview: object, *maps: object, check: Callable[[], None], **options: object) -> None:
        begun.set()
        while True:
            check()

    store = SessionStore(previewing)
    store.connect("a")
    store.connect("b")
    for other in "ab":
        assert store.run("a", restyle)["preview"]
        begun.clear()
        with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
            patch.setattr("hdgan.inference.preview.Preview.record", endless)
            refined = pool.submit(store.refine, "a")
            assert begun.wait(30)
            assert store.run(other, nothing)["message"] == ""
            assert refined.result(30) == {"preview": True, "turn": store.run("a", nothing)["turn"] - (other == "a") - 1}
        assert not store.refine("a")["preview"]


def test_a_closed_session_has_no_image(previewing: EditorContext) -> None:
    answer = SessionStore(previewing).refine("gone")
    assert "no longer has what this tab showed" in answer["message"]
    assert not answer["preview"]
