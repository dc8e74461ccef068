from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor import renderer as renderer_module
from hdgan.editor.document import Document
from hdgan.editor.renderer import Renderer
from hdgan.editor.session import Session
from hdgan.inference import Pipeline


@pytest.fixture
def opened(session: Session) -> Document:
    return session.document


def test_the_image_is_the_pipelines(pipeline: Pipeline, opened: Document) -> None:
    picture = Renderer(pipeline).render(opened)
    assert picture.shape == (*opened.label.shape, 3)
    assert picture.dtype == np.uint8
    expected = pipeline(opened.label, opened.ids, styles=opened.styles).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(picture, expected * 255, atol=0.51)


def test_cached_images_are_not_generated_again(
    pipeline: Pipeline, opened: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(pipeline)
    made = renderer.render(opened)
    monkeypatch.setattr(renderer, "_generate", lambda document: pytest.fail("made again"))
    again = Document.of(opened.label.copy(), opened.ids.copy(), opened.styles)
    assert renderer.render(again) is made


def test_each_part_of_a_document_changes_the_image(pipeline: Pipeline, opened: Document) -> None:
    renderer = Renderer(pipeline)
    id = max(opened.classes)
    made = renderer.render(opened)
    assert (renderer.render(opened.with_style(id, None)) != made).any()
    assert (renderer.render(opened.remove(id)) != made).any()
    assert (renderer.render(opened.with_class(id, 0)[0]) != made).any()


def test_old_images_leave_the_cache(pipeline: Pipeline, opened: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_module, "CACHE_PIXELS", 2 * opened.label.size)
    renderer = Renderer(pipeline)
    id = max(opened.classes)
    others = (opened.with_style(id, None), opened.remove(id))
    made = renderer.render(opened)
    renderer.render(others[0])
    assert renderer.render(opened) is made
    renderer.render(others[1])
    assert renderer.render(opened) is made
    assert len(renderer._cache) == 2
