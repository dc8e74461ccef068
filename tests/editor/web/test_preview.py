"""Previews in a real browser: an edit is shown at once, and then the picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from hdgan.editor.context import EditorContext
from hdgan.editor.renderer import Renderer
from hdgan.inference.preview import Preview

from ..browser_tab import Serve, Tab, an_object

pytestmark = pytest.mark.browser


class Gate:
    """Holds recordings back until it is opened. They end when they are not needed any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.begun = self.ended = 0
        record = Preview.record

        def held(preview: Preview, *maps: Any, check: Callable[[], None], **options: Any) -> Any:
            self.begun += 1
            while not self.opened.wait(0.01):
                try:
                    check()
                except Exception:
                    self.ended += 1
                    raise
            return record(preview, *maps, check=check, **options)

        monkeypatch.setattr(Preview, "record", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate(monkeypatch)
    gate.opened.set()
    return gate


@pytest.fixture
def tab(gate: Gate, browser: Browser, serve: Serve, previewing: EditorContext) -> Iterator[Tab]:
    tab = Tab(browser, serve(previewing))
    yield tab
    gate.opened.set()
    assert tab.errors == []
    tab.page.context.close()


def refined(tab: Tab) -> np.ndarray:
    """The picture, once it is no preview."""
    expect(tab.page.locator("#workspace .preview")).to_be_hidden()
    return tab.pixels()


def choose_style(tab: Tab, context: EditorContext, key: str) -> None:
    y, x = np.argwhere(an_object(context)[1])[0]
    tab.wait(lambda: tab.click(x, y))
    tab.press(key)


def test_an_edit_is_shown_at_once_and_then_exactly(tab: Tab, gate: Gate, previewing: EditorContext) -> None:
    before = refined(tab)
    gate.opened.clear()
    choose_style(tab, previewing, "1")
    expect(tab.page.locator("#workspace .preview")).to_be_visible()
    preview = tab.pixels()
    assert (preview != before).any()
    gate.opened.set()
    picture = refined(tab)
    assert (picture != preview).any()
    id, _ = an_object(previewing)
    document = previewing.sample(0)
    document = document.with_style(id, previewing.bank.style(document.classes[id], 0))
    exact = Renderer(previewing.pipeline).render(document)
    assert np.abs(picture - exact).mean() < 4  # JPEG
    assert np.abs(preview - exact).mean() > np.abs(picture - exact).mean()


def test_who_goes_on_painting_waits_for_no_picture_and_loses_nothing(
    tab: Tab, gate: Gate, previewing: EditorContext
) -> None:
    refined(tab)
    gate.opened.clear()
    tab.page.keyboard.press("b")
    tab.page.get_by_role("radio", name="class 3").click()
    labels = []
    for number, row in enumerate((2, 7, 12), 1):
        tab.wait(lambda row=row: tab.drag((6, row), (20, row)))  # type: ignore[misc]
        tab.page.wait_for_function("() => !document.querySelector('#workspace .preview').hidden")
        labels.append(tab.pixels("label"))
        assert (labels[-1][row, 13] == previewing.palette.colors[3]).all()
        while gate.begun < number + 1:  # the first picture was that of the sample
            tab.page.wait_for_timeout(10)
    assert gate.ended == 2
    gate.opened.set()
    picture = refined(tab)
    np.testing.assert_array_equal(tab.pixels("label"), labels[-1])
    for expected in labels[1::-1]:
        tab.press("Control+z")
        np.testing.assert_array_equal(tab.pixels("label"), expected)
    tab.press("Control+Shift+z")
    tab.press("Control+Shift+z")
    np.testing.assert_array_equal(refined(tab), picture)


def test_a_picture_that_fails_is_not_asked_for_again(
    tab: Tab, previewing: EditorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail(*args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        raise MemoryError

    refined(tab)
    with monkeypatch.context() as patch:
        patch.setattr(Preview, "record", fail)
        choose_style(tab, previewing, "1")
        expect(tab.page.locator("#workspace .alert")).to_contain_text("open a smaller image")
        tab.page.wait_for_timeout(300)
        assert calls == 1
    tab.press("Control+z")
    expect(tab.page.locator("#workspace .alert")).to_be_hidden()
