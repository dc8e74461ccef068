"""What the page does by itself, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

from hdgan.editor.session import Session
from hdgan.editor.studio import Studio

from .tab import Tab, an_object

pytestmark = pytest.mark.browser


def test_the_outline_can_be_hidden_and_a_pane_made_wide(tab: Tab, shared_studio: Studio) -> None:
    def drawn() -> bool:
        return tab.page.evaluate(
            """() => {
                const canvas = document.querySelector("#stage canvas");
                return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
            }"""
        )

    y, x = np.argwhere(an_object(shared_studio)[1])[0]
    tab.wait(lambda: tab.click(x, y))
    tab.wait_for_outline()
    assert drawn()
    tab.page.keyboard.press("h")
    assert not drawn()
    tab.page.keyboard.press("h")
    assert drawn()
    pane = tab.page.locator("#stage figure").nth(2)
    narrow = pane.bounding_box()
    pane.get_by_role("button", name="wide").click()
    wide = pane.bounding_box()
    assert narrow is not None
    assert wide is not None
    assert wide["width"] > 2 * narrow["width"]
    tab.wait(lambda: tab.click(3, 3))
    assert tab.selected


def test_keys_do_nothing_while_a_name_is_typed(tab: Tab) -> None:
    before = tab.pixels()
    tab.page.fill("#name input, #name textarea", "")
    tab.page.locator("#name input, #name textarea").press_sequentially("rrr")
    tab.page.wait_for_timeout(300)
    np.testing.assert_array_equal(tab.pixels(), before)


def test_a_reload_asks_and_goes_on_where_the_tab_was(tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    tab.wait(lambda: tab.click(3, 3))
    tab.reload()
    assert asked == []
    tab.press("r")
    edited, source = tab.pixels(), tab.page.get_attribute("[data-part=picture]", "src")
    tab.reload()
    assert asked == ["beforeunload"]
    assert tab.page.get_attribute("[data-part=picture]", "src") == source
    tab.press("Control+z")
    assert (tab.pixels() != edited).any()
    tab.reload()
    assert asked == ["beforeunload"]
    expect(tab.page.locator("[data-action=redo]")).to_be_enabled()
    assert tab.page.evaluate("sessionStorage.getItem('hdgan-tab')") is None  # or a copy of the tab would find it


def test_a_lost_connection_loses_no_edit(tab: Tab) -> None:
    page = tab.page
    page.on("dialog", lambda dialog: dialog.accept())
    before = tab.pixels()
    page.route("**/queue/data*", lambda route: route.abort(), times=1)
    with page.expect_navigation(timeout=30_000):  # Gradio loads the page anew as soon as it reaches the server
        page.keyboard.press("r")
    tab.wait_for_view()
    assert (tab.pixels() != before).any()
    expect(page.locator("[data-action=undo]")).to_be_enabled()
    expect(page.locator("#stage .alert")).to_be_hidden()


def test_a_view_that_cannot_be_made_leaves_the_page_as_it_is(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(renderer: object, document: object) -> None:
        raise MemoryError

    before = tab.pixels()
    with monkeypatch.context() as patch:
        patch.setattr("hdgan.editor.render.Renderer.picture", fail)
        tab.press("r")
        expect(tab.page.locator("#stage .alert")).to_contain_text("open a smaller picture")
        np.testing.assert_array_equal(tab.pixels(), before)
    tab.press("r")
    assert (tab.pixels() != before).any()
    expect(tab.page.locator("#stage .alert")).to_be_hidden()


def test_a_key_that_is_held_acts_once_but_for_undo(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    act = Session.act
    monkeypatch.setattr(Session, "act", lambda session, name, given: (done.append(name), act(session, name, given))[1])
    for _ in range(3):
        tab.press("r")
    for _ in range(5):
        tab.page.keyboard.down("r")
    tab.page.keyboard.up("r")
    expect(tab.page.locator("#stage .busy")).not_to_have_class("busy on")
    assert done == ["random"] * 4
    width = tab.page.locator("#stage .width")
    before = int(width.input_value())
    for _ in range(3):
        tab.page.keyboard.down("]")
    tab.page.keyboard.up("]")
    assert int(width.input_value()) > before + 2

    tab.page.keyboard.down("Control")
    undo = tab.page.locator("[data-action=undo]")
    while undo.is_enabled():
        tab.page.keyboard.down("z")
        tab.page.wait_for_timeout(30)
    tab.page.keyboard.up("z")
    tab.page.keyboard.up("Control")
    assert done == ["random"] * 4 + ["undo"] * 4
