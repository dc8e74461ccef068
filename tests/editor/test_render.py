from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor import render
from hdgan.editor.document import Document
from hdgan.editor.render import Renderer
from hdgan.editor.session import Session
from hdgan.inference import Pipeline


@pytest.fixture
def opened(session: Session) -> Document:
    return session.document


def test_the_picture_is_the_pipelines(pipeline: Pipeline, opened: Document) -> None:
    picture = Renderer(pipeline).picture(opened)
    assert picture.shape == (*opened.label.shape, 3)
    assert picture.dtype == np.uint8
    expected = pipeline(opened.label, opened.ids, styles=opened.styles).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(picture, expected * 255, atol=0.51)


def test_what_was_made_is_not_made_again(pipeline: Pipeline, opened: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(pipeline)
    made = renderer.picture(opened)
    monkeypatch.setattr(renderer, "_make", lambda document: pytest.fail("made again"))
    again = Document.of(opened.label.copy(), opened.ids.copy(), opened.styles)
    assert renderer.picture(again) is made


def test_each_part_of_a_document_makes_another_picture(pipeline: Pipeline, opened: Document) -> None:
    renderer = Renderer(pipeline)
    id = max(opened.classes)
    made = renderer.picture(opened)
    assert (renderer.picture(opened.with_style(id, None)) != made).any()
    assert (renderer.picture(opened.remove(id)) != made).any()
    assert (renderer.picture(opened.with_class(id, 0)[0]) != made).any()


def test_old_pictures_are_forgotten(pipeline: Pipeline, opened: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "KEPT_PIXELS", 2 * opened.label.size)
    renderer = Renderer(pipeline)
    id = max(opened.classes)
    others = (opened.with_style(id, None), opened.remove(id))
    made = renderer.picture(opened)
    renderer.picture(others[0])
    assert renderer.picture(opened) is made
    renderer.picture(others[1])
    assert renderer.picture(opened) is made
    assert len(renderer._made) == 2
