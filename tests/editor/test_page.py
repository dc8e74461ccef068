from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.editor.page import Page, describe, legend_entries, outline
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
