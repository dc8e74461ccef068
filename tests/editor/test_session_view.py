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

from hdgan.editor.context import EditorContext
from hdgan.editor.document import Document
from hdgan.editor.session import Session
from hdgan.editor.session_view import (
    SessionView,
    SupersededError,
    describe_classes,
    describe_instance,
    outline,
    user_message,
)

from .conftest import open_run


def image_of(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture
def session_view(session: Session) -> SessionView:
    return SessionView(session)


def test_without_a_document_there_are_notes(plain: Path) -> None:
    content = SessionView(Session(open_run(plain))).content()
    assert content["size"] is None
    assert len(content["notes"]) == 2


def test_the_content_has_maps_and_image(session_view: SessionView) -> None:
    content = session_view.content()
    json.dumps(content)
    document = session_view.session.document
    assert content["size"] == document.size == (32, 16)
    painted = session_view.session.context.palette.paint(document.label)
    np.testing.assert_array_equal(image_of(content["label"]), painted)
    colours = image_of(content["ids"])
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(document.classes)
    shown, made = image_of(content["image"]).astype(int), session_view.session.image()
    assert np.abs(shown - made).mean() < 4  # JPEG
    assert (content["canUndo"], content["canRedo"], content["selected"]) == (False, False, None)


def test_only_changed_maps_are_encoded_again(session_view: SessionView, monkeypatch: pytest.MonkeyPatch) -> None:
    first = session_view.content()
    with monkeypatch.context() as patch:
        patch.setattr("hdgan.editor.session_view.colorize_ids", lambda ids: pytest.fail("encoded again"))
        session_view.session.randomize()
        assert session_view.content()["ids"] is first["ids"]
        assert session_view.content()["canUndo"]
    session_view.session.brush([(3, 3)], 4, 3)
    assert session_view.content()["ids"] != first["ids"]


def test_the_selected_object_is_described(session_view: SessionView) -> None:
    session = session_view.session
    session.brush([(8, 8)], 9, 3)
    selected = session_view.content()["selected"]
    assert selected["id"] == session.selected
    assert (selected["label"], selected["name"], selected["mean"]) == (3, "class 3", False)
    assert selected["style"] == f"cluster {selected['cluster']}"
    choices = session.context.choices(3)
    assert len(selected["choices"]) == len(choices) > 0
    for url, (_, thumbnail) in zip(selected["choices"], choices, strict=True):
        assert thumbnail is not None
        assert image_of(url).shape[:2] == thumbnail.size[::-1]
    inside = image_of(selected["outline"])[..., 3] > 0
    np.testing.assert_array_equal(inside, session.document.mask(session.selected))  # type: ignore[arg-type]


def test_styles_are_named(context: EditorContext, session_view: SessionView, plain: Path) -> None:
    document = session_view.session.document
    id = max(document.classes)
    assert describe_instance(context, document, id)["style"] == "its own, not from a cluster"
    without = describe_instance(context, document.with_style(id, None), id)
    assert without["style"] == "mean of the class"
    assert without["mean"]
    described = describe_instance(open_run(plain), document, id)
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


def test_every_class_is_described(context: EditorContext) -> None:
    entries = describe_classes(context)
    assert [entry["label"] for entry in entries] == [0, 1, 2, 3]
    assert all(entry["color"].startswith("#") and entry["name"] for entry in entries)


class TestAnswers:
    def test_an_action_returns_the_content(self, session_view: SessionView) -> None:
        content = session_view.run(lambda session: session.randomize(), 3)
        assert content["canUndo"]
        assert content["unsaved"]
        assert (content["message"], content["confirmation"], content["serial"]) == ("", "", 3)
        assert session_view.run(lambda session: "seen")["confirmation"] == "seen"

    def test_opened_documents_are_told_apart(self, session_view: SessionView) -> None:
        first = session_view.run(lambda session: None)["document"]
        assert session_view.run(lambda session: session.randomize())["document"] == first
        second = session_view.run(lambda session: session.open_sample(0))["document"]
        assert second != first
        assert session_view.run(lambda session: session.undo())["document"] == first
        assert session_view.run(lambda session: session.redo())["document"] == second

    def test_an_impossible_action_returns_a_message(self, session_view: SessionView) -> None:
        content = session_view.run(lambda session: session.remove())
        assert "click one first" in content["message"]
        assert content["size"] == (32, 16)

    def test_a_bug_is_reported(self, session_view: SessionView, capsys: pytest.CaptureFixture[str]) -> None:
        assert "bug in the editor (ZeroDivisionError" in session_view.run(lambda session: 1 / 0)["message"]  # type: ignore
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize("action", ["undo", "redo"])
    def test_an_undo_without_memory_changes_nothing(
        self, session_view: SessionView, context: EditorContext, monkeypatch: pytest.MonkeyPatch, action: str
    ) -> None:
        for _ in range(2):
            session_view.session.randomize()
        session_view.session.undo()
        before = session_view.session.document
        monkeypatch.setattr(context.renderer, "show", out_of_memory)
        content = session_view.run(lambda session: getattr(session, action)(), 5)
        assert "The memory of cpu is too small for this image: open a smaller image" in content["message"]
        assert "--precision bfloat16" in content["message"]
        assert "bug" not in content["message"]
        assert "size" not in content
        assert content["serial"] == 5
        assert session_view.session.document is before
        monkeypatch.undo()
        assert session_view.run(lambda session: None)["canRedo"]

    def test_without_content_there_is_a_message(
        self, session_view: SessionView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_view, "content", lambda: 1 / 0)
        content = session_view.run(lambda session: "Saved in x", 4)
        assert "ZeroDivisionError" in content["message"]
        assert (content["confirmation"], content["serial"]) == ("Saved in x", 4)
        assert "click one first" in session_view.run(lambda session: session.remove())["message"]

    def test_the_name_is_returned_when_it_changes(self, session_view: SessionView) -> None:
        assert session_view.run(lambda session: None)["name"] == "picture"
        assert "name" not in session_view.run(lambda session: session.randomize())
        assert session_view.run(lambda session: str(session.save("mine")))["name"] == "mine"
        assert session_view.run(lambda session: session.open_sample(1))["name"] == "picture"
        for _ in range(2):
            assert session_view.run(lambda session: session.open_saved("mine"))["name"] == "mine"
        assert "name" not in session_view.run(lambda session: session.randomize())
        assert SessionView(session_view.session).run(lambda session: None)["name"] == "mine"


def out_of_memory(document: Document) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_remedies_for_little_memory_are_not_in_use_already(error: Exception) -> None:
    remedies = [
        user_message(error, SimpleNamespace(device=torch.device(device), precision=precision))  # type: ignore
        for device, precision in (("cpu", "bfloat16"), ("cuda:0", "float16"), ("cuda:0", "float32"))
    ]
    assert [remedy.partition(": open a smaller image")[2] for remedy in remedies] == [
        ".",
        ", or start the editor with --device cpu.",
        ", or start the editor with --precision bfloat16 or --device cpu.",
    ]


@pytest.fixture
def edited(previewing: EditorContext) -> SessionView:
    """A view whose page shows a preview."""
    session_view = SessionView(Session(previewing))
    session_view.run(lambda session: session.open_sample(0))
    assert session_view.run(lambda session: session.randomize())["preview"]
    return session_view


def test_a_preview_becomes_the_image(edited: SessionView) -> None:
    preview = edited.content()
    refined = edited.refine(lambda: None)
    assert set(refined) == {"preview", "turn", "image"}
    assert not refined["preview"]
    assert refined["image"] != preview["image"]
    after = edited.content()
    assert (after["image"], after["preview"]) == (refined["image"], False)
    assert not edited.run(lambda session: session.undo())["preview"]


def test_a_later_answer_has_a_later_turn(edited: SessionView) -> None:
    refined = edited.refine(lambda: None)
    assert edited.run(lambda session: session.undo())["turn"] > refined["turn"]


def test_a_superseded_image_is_asked_for_again(edited: SessionView) -> None:
    def check() -> None:
        raise SupersededError

    assert edited.refine(check) == {"preview": True, "turn": 2}
    assert edited.content()["preview"]
    assert not edited.refine(lambda: None)["preview"]


def test_an_image_that_fails_leaves_its_preview(edited: SessionView, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    shown = edited.content()["image"]
    with monkeypatch.context() as patch:
        patch.setattr("hdgan.inference.preview.Preview.record", fail)
        failed = edited.refine(lambda: None)
        assert "open a smaller image" in failed["message"]
        assert (failed["preview"], "image" in failed) == (False, False)
    assert edited.content()["image"] == shown


def test_what_is_saved_is_no_preview(edited: SessionView) -> None:
    edited.run(lambda session: str(session.save("mine")))
    folder = edited.session.context.folder / "mine"
    saved = np.asarray(Image.open(folder / "picture.png"))
    np.testing.assert_array_equal(saved, edited.session.image())
    assert not edited.content()["preview"]
