"""The code of the page, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

from hdgan.editor.context import EditorContext
from hdgan.editor.web.requests import Action, parse_action

from ..browser_tab import Tab, an_object

pytestmark = pytest.mark.browser


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The actions that the server runs, in order."""
    run: list[str] = []

    def record(text: str) -> Action:
        action = parse_action(text)
        run.append(action.action)
        return action

    monkeypatch.setattr("hdgan.editor.web.app.parse_action", record)
    return run


def test_the_outline_can_be_hidden_and_a_pane_widened(tab: Tab, shared_context: EditorContext) -> None:
    def drawn() -> bool:
        return tab.page.evaluate(
            """() => {
                const canvas = document.querySelector("#workspace canvas");
                return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
            }"""
        )

    y, x = np.argwhere(an_object(shared_context)[1])[0]
    tab.wait(lambda: tab.click(x, y))
    tab.wait_for_outline()
    assert drawn()
    tab.page.keyboard.press("h")
    assert not drawn()
    tab.page.keyboard.press("h")
    assert drawn()
    pane = tab.page.locator("#workspace figure").nth(2)
    narrow = pane.bounding_box()
    pane.get_by_role("button", name="wide").click()
    wide = pane.bounding_box()
    assert narrow is not None
    assert wide is not None
    assert wide["width"] > 2 * narrow["width"]
    tab.wait(lambda: tab.click(3, 3))
    assert tab.selected


def test_digits_choose_a_style_of_the_selected_object(
    tab: Tab, shared_context: EditorContext, actions: list[str]
) -> None:
    y, x = np.argwhere(an_object(shared_context)[1])[0]
    tab.wait(lambda: tab.click(x, y))
    style = tab.page.locator("#workspace .style")
    tab.press("1")
    expect(style).to_have_text("cluster 0")
    tab.press("0")
    expect(style).to_have_text("mean of the class")
    tab.page.keyboard.press("9")
    tab.press("Escape")
    tab.page.keyboard.press("1")
    tab.press("r")
    assert actions == ["select", "set_style", "set_style", "deselect", "randomize"]


def test_keys_do_nothing_while_a_name_is_typed(tab: Tab) -> None:
    before = tab.pixels()
    tab.page.fill("#name input, #name textarea", "")
    tab.page.locator("#name input, #name textarea").press_sequentially("rrr")
    tab.page.wait_for_timeout(300)
    np.testing.assert_array_equal(tab.pixels(), before)


def test_a_reload_asks_and_continues_the_session(tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    tab.wait(lambda: tab.click(3, 3))
    tab.reload()
    assert asked == []
    tab.press("r")
    edited, source = tab.pixels(), tab.page.get_attribute("[data-part=image]", "src")
    tab.reload()
    assert asked == ["beforeunload"]
    assert tab.page.get_attribute("[data-part=image]", "src") == source
    tab.press("Control+z")
    assert (tab.pixels() != edited).any()
    tab.reload()
    assert asked == ["beforeunload"]
    expect(tab.page.locator("[data-action=redo]")).to_be_enabled()
    assert (
        tab.page.evaluate("sessionStorage.getItem('hdgan-tab')") is None
    )  # otherwise a duplicate of the tab would find it


def test_a_lost_connection_loses_no_edit(tab: Tab) -> None:
    page = tab.page
    page.on("dialog", lambda dialog: dialog.accept())
    before = tab.pixels()
    page.route("**/queue/data*", lambda route: route.abort(), times=1)
    with page.expect_navigation(timeout=30_000):  # Gradio reloads the page as soon as it reaches the server
        page.keyboard.press("r")
    tab.wait_for_view()
    assert (tab.pixels() != before).any()
    expect(page.locator("[data-action=undo]")).to_be_enabled()
    expect(page.locator("#workspace .alert")).to_be_hidden()


def test_a_failed_render_leaves_the_page_unchanged(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(renderer: object, document: object) -> None:
        raise MemoryError

    before = tab.pixels()
    with monkeypatch.context() as patch:
        patch.setattr("hdgan.editor.renderer.Renderer.show", fail)
        tab.press("r")
        expect(tab.page.locator("#workspace .alert")).to_contain_text("open a smaller image")
        np.testing.assert_array_equal(tab.pixels(), before)
    tab.press("r")
    assert (tab.pixels() != before).any()
    expect(tab.page.locator("#workspace .alert")).to_be_hidden()


def test_of_held_keys_only_undo_repeats(tab: Tab, actions: list[str]) -> None:
    for _ in range(3):
        tab.press("r")
    for _ in range(5):
        tab.page.keyboard.down("r")
    tab.page.keyboard.up("r")
    expect(tab.page.locator("#workspace .busy")).not_to_have_class("busy on")
    assert actions == ["randomize"] * 4
    width = tab.page.locator("#workspace .width")
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
    assert actions == ["randomize"] * 4 + ["undo"] * 4


def test_a_half_drawn_polygon_does_not_reach_another_document(tab: Tab, actions: list[str]) -> None:
    def draw() -> None:
        tab.page.keyboard.press("p")
        for corner in ((3, 2), (9, 2), (9, 6)):
            tab.click(*corner)

    def open_other() -> None:
        tab.page.click("#sample input")
        tab.page.get_by_role("option", name="s1").click()

    draw()
    tab.press("r")  # an edit of the same document keeps the polygon
    tab.press("Enter")
    assert actions == ["randomize", "polygon"]
    draw()
    tab.wait(open_other)
    opened = tab.pixels("label")
    tab.page.keyboard.press("Enter")
    tab.press("r")
    assert actions == ["randomize", "polygon", "randomize"]
    np.testing.assert_array_equal(tab.pixels("label"), opened)


def test_a_touch_that_is_cancelled_moves_nothing(tab: Tab, shared_context: EditorContext) -> None:
    touches = tab.page.context.new_cdp_session(tab.page)

    def touch(kind: str, *point: float) -> None:
        at = [dict(zip("xy", tab.position(*point), strict=True))] if point else []
        touches.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": at})

    def tap(x: float, y: float) -> None:
        touch("Start", x, y)
        touch("End")

    mask = an_object(shared_context)[1]
    (y, x), (other_y, other_x) = np.argwhere(mask)[0], np.argwhere(~mask)[0]
    tab.wait(lambda: tap(x, y))
    tab.page.keyboard.press("m")
    tab.wait_for_outline()
    before, moved = tab.pixels("label"), tab.selected
    touch("Start", x, y)
    touch("Move", x + 3, y + 2)
    touch("Cancel")
    tab.wait(lambda: tap(other_x, other_y))
    assert tab.selected != moved
    expect(tab.page.locator("#workspace .busy")).not_to_have_class("busy on")
    np.testing.assert_array_equal(tab.pixels("label"), before)
    expect(tab.page.locator("[data-action=undo]")).to_be_disabled()
