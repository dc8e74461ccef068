from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.editor.document import Document
from hdgan.editor.page import Page, describe, explain, legend_entries, outline
from hdgan.editor.session import Session
from hdgan.editor.studio import Studio, open_studio


def picture_of(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture
def page(session: Session) -> Page:
    return Page(session)


def test_a_page_without_document_says_what_is_wrong(plain: Path) -> None:
    view = Page(Session(open_studio(plain, device="cpu"))).view("bad file")
    assert view["size"] is None
    assert view["message"] == "bad file"
    assert len(view["notes"]) == 2


def test_a_page_shows_maps_and_picture(page: Page) -> None:
    view = page.view()
    json.dumps(view)
    document = page.session.document
    assert view["size"] == document.size == (32, 16)
    np.testing.assert_array_equal(picture_of(view["label"]), page.session.studio.legend.paint(document.label))
    colours = picture_of(view["ids"])
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(document.classes)
    shown, made = picture_of(view["picture"]).astype(int), page.session.picture()
    assert np.abs(shown - made).mean() < 4  # JPEG
    assert (view["canUndo"], view["canRedo"], view["selected"]) == (False, False, None)


def test_maps_are_encoded_again_only_where_they_changed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    first = page.view()
    with monkeypatch.context() as patch:
        patch.setattr("hdgan.editor.page.colorize_ids", lambda ids: pytest.fail("encoded again"))
        page.session.restyle_all()
        assert page.view()["ids"] is first["ids"]
        assert page.view()["canUndo"]
    page.session.brush([(3, 3)], 4, 3)
    assert page.view()["ids"] != first["ids"]


def test_the_selected_object_is_described(page: Page) -> None:
    session = page.session
    session.brush([(8, 8)], 9, 3)
    selected = page.view()["selected"]
    assert selected["id"] == session.selected
    assert (selected["label"], selected["name"], selected["mean"]) == (3, "class 3", False)
    assert selected["style"] == f"cluster {selected['cluster']}"
    choices = session.studio.choices(3)
    assert len(selected["choices"]) == len(choices) > 0
    for url, (_, thumbnail) in zip(selected["choices"], choices, strict=True):
        assert thumbnail is not None
        assert picture_of(url).shape[:2] == thumbnail.size[::-1]
    inside = picture_of(selected["outline"])[..., 3] > 0
    np.testing.assert_array_equal(inside, session.document.mask(session.selected))  # type: ignore[arg-type]


def test_styles_are_named(studio: Studio, page: Page, plain: Path) -> None:
    document = page.session.document
    id = max(document.classes)
    assert describe(studio, document, id)["style"] == "its own, no cluster's"
    without = describe(studio, document.with_style(id, None), id)
    assert without["style"] == "mean of the class"
    assert without["mean"]
    described = describe(open_studio(plain, device="cpu"), document, id)
    assert "without features" in described["style"]
    assert described["choices"] == []


def test_an_outline_has_a_bright_and_a_dark_line() -> None:
    mask = np.zeros((64, 1024), bool)
    mask[10:50, 100:200] = True
    values = np.asarray(outline(mask))
    assert not values[~mask].any()
    assert values[10:13, 150].tolist() == [[255, 255, 255, 255]] * 3
    assert values[13:16, 150].tolist() == [[0, 0, 0, 160]] * 3
    assert values[30, 150].tolist() == [255, 255, 255, 24]


def test_the_legend_has_every_class(studio: Studio) -> None:
    entries = legend_entries(studio)
    assert [entry["label"] for entry in entries] == [0, 1, 2, 3]
    assert all(entry["colour"].startswith("#") and entry["name"] for entry in entries)


class TestAnswers:
    def test_an_action_is_answered_by_the_view(self, page: Page) -> None:
        view = page.answer(lambda session: session.restyle_all(), 3)
        assert view["canUndo"]
        assert view["dirty"]
        assert (view["message"], view["done"], view["serial"]) == ("", "", 3)
        assert page.answer(lambda session: "seen")["done"] == "seen"

    def test_what_comes_from_another_opening_is_told_apart(self, page: Page) -> None:
        first = page.answer(lambda session: None)["opening"]
        assert page.answer(lambda session: session.restyle_all())["opening"] == first
        second = page.answer(lambda session: session.open_sample(0))["opening"]
        assert second != first
        assert page.answer(lambda session: session.undo())["opening"] == first
        assert page.answer(lambda session: session.redo())["opening"] == second

    def test_what_cannot_be_done_is_said(self, page: Page) -> None:
        view = page.answer(lambda session: session.remove())
        assert "click one first" in view["message"]
        assert view["size"] == (32, 16)

    def test_a_bug_is_said_and_shown_in_the_terminal(self, page: Page, capsys: pytest.CaptureFixture[str]) -> None:
        assert "bug of the editor (ZeroDivisionError" in page.answer(lambda session: 1 / 0)["message"]  # type: ignore
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize("action", ["undo", "redo"])
    def test_an_undo_without_memory_for_its_picture_is_none(
        self, page: Page, studio: Studio, monkeypatch: pytest.MonkeyPatch, action: str
    ) -> None:
        for _ in range(2):
            page.session.restyle_all()
        page.session.undo()
        before = page.session.document
        monkeypatch.setattr(studio.renderer, "picture", out_of_memory)
        view = page.answer(lambda session: session.act(action, {}), 5)
        assert "does not fit into the memory of cpu: open a smaller picture" in view["message"]
        assert "--precision bfloat16" in view["message"]
        assert "bug" not in view["message"]
        assert "size" not in view
        assert view["serial"] == 5
        assert page.session.document is before
        monkeypatch.undo()
        assert page.answer(lambda session: None)["canRedo"]

    def test_a_view_that_cannot_be_made_is_the_message_alone(self, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(page, "view", lambda message, done: 1 / 0)
        view = page.answer(lambda session: "Saved in x", 4)
        assert "ZeroDivisionError" in view["message"]
        assert (view["done"], view["serial"]) == ("Saved in x", 4)
        assert "click one first" in page.answer(lambda session: session.remove())["message"]

    def test_the_name_is_told_where_it_changes(self, page: Page) -> None:
        assert page.answer(lambda session: None)["name"] == "picture"
        assert "name" not in page.answer(lambda session: session.restyle_all())
        assert page.answer(lambda session: str(session.save("mine")))["name"] == "mine"
        assert page.answer(lambda session: session.open_sample(1))["name"] == "picture"
        for _ in range(2):
            assert page.answer(lambda session: session.open_saved("mine"))["name"] == "mine"
        assert "name" not in page.answer(lambda session: session.restyle_all())
        assert page.answer(lambda session: None, loaded=True)["name"] == "mine"


def out_of_memory(document: Document) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_the_remedy_for_little_memory_is_one_that_is_left(error: Exception) -> None:
    remedies = [
        explain(error, SimpleNamespace(device=torch.device(device), precision=precision))  # type: ignore
        for device, precision in (("cpu", "bfloat16"), ("cuda:0", "bfloat16"), ("cuda:0", "float32"))
    ]
    assert [remedy.partition(": open a smaller picture")[2] for remedy in remedies] == [
        ".",
        ", or start the editor with --device cpu.",
        ", or start the editor with --precision bfloat16 or --device cpu.",
    ]
