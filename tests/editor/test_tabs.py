from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor.session import Session
from hdgan.editor.studio import Studio, open_studio
from hdgan.editor.tabs import KEPT, KEPT_HOURS, Tabs


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


def test_what_is_used_is_kept_and_what_is_not_is_closed(tabs: Tabs, clock: Clock) -> None:
    for key in ("used", "unused"):
        tabs.begin(key)
        tabs.answer(key, restyle)
    for clock.hours in np.linspace(0, KEPT_HOURS, 5) + 1:
        assert tabs.answer("used", nothing)["canUndo"]
    assert len(tabs._pages) == 1
    view = tabs.answer("unused", nothing, serial=7)
    assert "not used for 24 hours" in view["message"]
    assert "Reload the page" in view["message"]
    assert (view["serial"], view["dirty"]) == (7, False)


def test_the_tab_used_longest_ago_makes_room(tabs: Tabs) -> None:
    for number in range(KEPT):
        tabs.begin(str(number))
    tabs.answer("0", restyle)
    tabs.begin("one more")
    assert len(tabs._pages) == KEPT
    assert tabs.answer("0", nothing)["canUndo"]
    assert "32 others were used after it" in tabs.answer("1", nothing)["message"]


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
