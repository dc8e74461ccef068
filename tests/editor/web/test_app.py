"""The page in a real browser."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from hdgan.editor.context import EditorContext
from hdgan.editor.session import Session
from hdgan.editor.session_store import SessionStore
from hdgan.editor.web.app import _Handlers, launch
from hdgan.errors import HdganError

from ..browser_tab import Serve, Tab, an_object
from ..conftest import open_run

pytestmark = pytest.mark.browser


def test_select_restyle_add_undo_save(tab: Tab, shared_context: EditorContext) -> None:
    page = tab.page
    id, mask = an_object(shared_context)
    y, x = np.argwhere(mask)[0]
    tab.wait(lambda: tab.click(x, y))
    assert tab.selected == str(id)

    before = tab.pixels()
    choices = page.locator("#workspace .styles button")
    assert choices.count() == 1 + len(shared_context.choices(shared_context.sample(0).classes[id]))
    tab.wait(lambda: choices.nth(1).click())
    expect(page.locator("#workspace .style")).to_have_text("cluster 0")
    change = np.abs(tab.pixels() - before)
    assert change[mask].mean() > 1
    assert change[mask].mean() > change[~mask].mean()

    page.keyboard.press("b")
    page.get_by_role("radio", name="class 3").click()
    maps = tab.pixels("label")
    tab.wait(lambda: tab.drag((6, 4), (20, 4)))
    assert tab.selected not in ("", str(id))
    assert (tab.pixels("label")[4, 13] == shared_context.palette.colors[3]).all()

    tab.press("Control+z")
    np.testing.assert_array_equal(tab.pixels("label"), maps)
    tab.press("Control+Shift+z")
    assert (tab.pixels("label") != maps).any()

    page.fill("#name input, #name textarea", "from the browser")
    page.click("#save")
    expect(page.locator("#workspace .confirmation")).to_contain_text("Saved in")
    folder = shared_context.folder / "from the browser"
    assert {file.name for file in folder.iterdir()} == {"label.png", "instance.png", "styles.json", "picture.png"}
    shown = tab.pixels()
    source = page.get_attribute("[data-part=image]", "src")
    tab.press("r")
    assert (tab.pixels() != shown).any()
    page.click("#saved input")
    page.get_by_role("option", name="from the browser").click()
    page.wait_for_function(
        "source => document.querySelector('[data-part=image]').src === source",
        arg=source,
    )
    assert np.abs(np.asarray(Image.open(folder / "picture.png")).astype(int) - shown).mean() < 4  # JPEG


def test_polygon_copy_move_and_delete(tab: Tab) -> None:
    page = tab.page
    page.keyboard.press("p")
    page.get_by_role("radio", name="class 2").click()
    for corner in ((3, 2), (9, 2), (9, 6)):
        tab.click(*corner)
    tab.press("Enter")
    original = tab.selected
    label = tab.pixels("label")
    page.keyboard.press("c")
    tab.wait_for_outline()
    tab.wait(lambda: tab.drag((8, 3), (20, 9)))
    copy = tab.selected
    assert copy not in ("", original)
    assert (tab.pixels("label")[9, 20] == label[3, 8]).all()
    page.keyboard.press("m")
    tab.wait_for_outline()
    tab.wait(lambda: tab.drag((20, 9), (24, 9)))
    assert tab.selected == copy
    tab.press("Delete")
    expect(page.locator("#workspace .none")).to_be_visible()
    for _ in range(3):
        tab.press("Control+z")
    np.testing.assert_array_equal(tab.pixels("label"), label)


def test_an_object_of_another_class(tab: Tab, shared_context: EditorContext) -> None:
    id, mask = an_object(shared_context)
    y, x = np.argwhere(mask)[0]
    tab.wait(lambda: tab.click(x, y))
    other = 5 - shared_context.sample(0).classes[id]
    tab.wait(lambda: tab.page.select_option("#workspace select.class", str(other)))
    assert (tab.pixels("label")[y, x] == shared_context.palette.colors[other]).all()
    expect(tab.page.locator("#workspace .name")).to_have_text(f"class {other}")


def test_a_dropdown_opens_only_what_is_chosen(tab: Tab, shared_context: EditorContext) -> None:
    page = tab.page
    box, undo = page.locator("#sample input"), page.locator("[data-action=undo]")
    first = tab.pixels("label")
    tab.press("r")
    picture = "document.querySelector('[data-part=image]').src"
    edited = page.evaluate(picture)
    for selector in ("#sample input", "#saved input"):
        page.click(selector)
        page.locator("#workspace h3").first.click()
        page.focus(selector)
        page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    assert page.evaluate(picture) == edited
    expect(page.locator("#workspace .alert")).to_be_hidden()

    def choose(*keys: str, option: str = "") -> None:
        before = page.evaluate(picture)
        box.focus()
        for key in keys:
            page.keyboard.press(key)
        if option:
            page.get_by_role("option", name=option).click()
        page.wait_for_function(f"before => {picture} !== before", arg=before)

    choose(option="s0")
    tab.press("Control+z")
    assert page.evaluate(picture) == edited  # it was opened only once
    choose("Enter")
    np.testing.assert_array_equal(tab.pixels("label"), first)
    choose("ArrowDown", "Enter")
    expect(box).to_have_value("s1")
    assert (tab.pixels("label") != first).any()
    choose("Backspace", "0", "Enter")
    expect(box).to_have_value("s0")
    np.testing.assert_array_equal(tab.pixels("label"), first)
    box.focus()
    for key in ("ArrowDown", "Escape", "Enter"):  # closing the list chooses nothing
        page.keyboard.press(key)
    page.locator("#workspace h3").first.click()
    page.wait_for_timeout(500)
    expect(box).to_have_value("s0")
    for _ in range(4):
        assert undo.is_enabled()
        tab.press("Control+z")
    expect(undo).to_be_disabled()


def test_no_choice_opens_nothing(shared_context: EditorContext) -> None:
    store = SessionStore(shared_context)
    store.connect("tab")
    opened = store.run("tab", lambda session: session.randomize())
    request = SimpleNamespace(session_hash="tab")
    for handler in (_Handlers(store).open_sample, _Handlers(store).open_saved):
        view, _ = handler(None, request)  # type: ignore[arg-type]
        assert view["message"] == ""
        assert view["document"] == opened["document"]
        assert view["image"] == opened["image"]


def test_two_tabs_share_nothing(browser: Browser, serve: Serve, shared_context: EditorContext) -> None:
    url = serve(shared_context)
    first, second = Tab(browser, url), Tab(browser, url)
    before = second.pixels()
    first.press("r")
    assert (first.pixels() != before).any()
    np.testing.assert_array_equal(second.pixels(), before)
    expect(second.page.locator("[data-action=undo]")).to_be_disabled()
    second.wait(lambda: second.click(3, 3))
    assert second.selected
    assert not first.selected


def upload(tab: Tab, label: Path, instance: Path) -> None:
    tab.page.get_by_text("Open your own files").click()
    for name, file in (("label", label), ("instance", instance)):
        tab.page.set_input_files(f"#{name}-file input", str(file))
        expect(tab.page.locator(f"#{name}-file")).to_contain_text(file.name[:3])
    tab.page.click("#open-files")


def test_own_maps_are_opened(tab: Tab, tmp_path: Path) -> None:
    label = np.repeat(np.arange(4, dtype=np.uint8), 10)[None].repeat(20, axis=0)
    Image.fromarray(label).save(tmp_path / "lab.png")
    Image.fromarray(label.astype(np.uint16) * 1000).save(tmp_path / "ins.png")
    upload(tab, tmp_path / "lab.png", tmp_path / "ins.png")
    tab.page.wait_for_function("() => document.querySelector('[data-part=label]').naturalWidth === 40")
    tab.wait(lambda: tab.click(35, 10))
    assert tab.selected == "3000"


@pytest.mark.parametrize(
    ("size", "value", "mode", "says"),
    [
        ((200, 100), 0, "L", "--max-pixels 20000"),
        ((32, 16), 0, "RGB", "save one channel of integers"),
        ((32, 16), 9, "L", "label 9"),
    ],
    ids=["too large", "no label map", "out of range"],
)
def test_bad_maps_are_refused_and_the_server_continues(
    tab: Tab, tmp_path: Path, size: tuple[int, int], value: int, mode: str, says: str
) -> None:
    Image.new(mode, size, value).save(tmp_path / "lab.png")
    Image.new("L", size).save(tmp_path / "ins.png")
    before = tab.pixels()
    upload(tab, tmp_path / "lab.png", tmp_path / "ins.png")
    alert = tab.page.locator("#workspace .alert")
    expect(alert).to_contain_text(says)
    expect(alert).to_contain_text("lab.png")
    assert "/gradio/" not in alert.inner_text()
    tab.press("r")
    assert (tab.pixels() != before).any()
    expect(alert).to_be_hidden()


def test_a_run_without_clusters_says_so(browser: Browser, serve: Serve, run: Path, tmp_path: Path) -> None:
    tab = Tab(browser, serve(open_run(run, out=tmp_path)))
    expect(tab.page.locator("#workspace .notes")).to_contain_text("hdgan styles cluster")
    tab.press("r")
    expect(tab.page.locator("#workspace .alert")).to_contain_text("hdgan styles encode")
    tab.wait(lambda: tab.click(3, 3))
    assert tab.page.locator("#workspace .styles button").count() == 0
    expect(tab.page.locator("#workspace .alert")).to_be_hidden()


def test_a_model_without_an_encoder_says_so(browser: Browser, serve: Serve, plain: Path, dataset: Path) -> None:
    tab = Tab(browser, serve(open_run(plain, root=dataset)))
    expect(tab.page.locator("#workspace .notes")).to_contain_text("--model.feature-channels 3")
    tab.wait(lambda: tab.click(3, 3))
    expect(tab.page.locator("#workspace .style")).to_contain_text("without features")
    before = tab.pixels("label")
    tab.page.keyboard.press("b")
    tab.page.get_by_role("radio", name="class 3").click()
    tab.wait(lambda: tab.drag((6, 4), (20, 4)))
    assert (tab.pixels("label") != before).any()


def test_the_name_follows_the_document_and_other_tabs_are_listed(tab: Tab, shared_context: EditorContext) -> None:
    page = tab.page
    name = page.locator("#name input, #name textarea")
    expect(name).to_have_value("picture")
    other = Session(shared_context)
    other.open_sample(1)
    other.save("of another tab")
    page.click("#saved input")
    page.get_by_role("option", name="of another tab").click()
    expect(name).to_have_value("of another tab")
    page.wait_for_timeout(500)  # Gradio sets the value once more some milliseconds later
    name.fill("typed")
    page.locator("#workspace h3").first.click()
    tab.press("r")
    expect(name).to_have_value("typed")
    page.click("#sample input")
    page.get_by_role("option", name="s1").click()
    expect(name).to_have_value("picture")


def test_a_bug_ends_neither_server_nor_session(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdgan.editor.document.Document.remove", lambda document, id: 1 / 0)
    tab.wait(lambda: tab.click(3, 3))
    tab.press("Delete")
    expect(tab.page.locator("#workspace .alert")).to_contain_text("ZeroDivisionError")
    tab.press("r")
    expect(tab.page.locator("#workspace .alert")).to_be_hidden()


def test_only_this_machine_can_reach_the_server(serve: Serve, shared_context: EditorContext) -> None:
    url = serve(shared_context)
    assert url.startswith("http://127.0.0.1:")
    port = int(url.rstrip("/").rpartition(":")[2])
    answer = urllib.request.urlopen(url)
    assert answer.status == 200
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    with pytest.raises(HdganError, match=f"port {port}.*--port"):
        launch(shared_context, port=port)
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


def test_other_sites_are_refused(serve: Serve, shared_context: EditorContext) -> None:
    url = serve(shared_context)
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        upload = urllib.request.Request(url + "gradio_api/upload", b"", headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(upload)
        assert caught.value.code == 403
