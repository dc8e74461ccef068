from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor import renderer as renderer_module
from hdgan.editor.document import Document
from hdgan.editor.renderer import Renderer
from hdgan.editor.session import Session
from hdgan.inference import Pipeline
from hdgan.inference.preview import Preview


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
    monkeypatch.setattr(renderer, "_generate", lambda document, check: pytest.fail("made again"))
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


@pytest.fixture
def previewing(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Renderer:
    """A renderer that previews edits of any size."""
    monkeypatch.setattr(renderer_module, "MOST_SHARE", 1)
    return Renderer(pipeline, Preview(pipeline))


def test_an_edit_is_previewed_and_then_exact(pipeline: Pipeline, opened: Document, previewing: Renderer) -> None:
    before = previewing.show(opened)
    assert before.exact
    np.testing.assert_array_equal(before.image, Renderer(pipeline).render(opened))
    edited = opened.remove(max(opened.classes))
    preview, exact = previewing.show(edited), Renderer(pipeline).render(edited)
    assert not preview.exact
    assert previewing.show(edited) is preview
    change = np.abs(exact.astype(int) - before.image).mean()
    assert 0 < np.abs(exact.astype(int) - preview.image).mean() < change
    np.testing.assert_array_equal(previewing.render(edited), exact)
    assert previewing.show(edited).exact
    np.testing.assert_array_equal(previewing.show(opened).image, before.image)


def test_edits_in_a_row_are_previewed_without_the_pictures_between(
    pipeline: Pipeline, opened: Document, previewing: Renderer
) -> None:
    previewing.show(opened)
    one, two = sorted(opened.classes)[-2:]
    first = opened.with_style(one, None)
    second = first.remove(two)
    previewing.show(first)
    shown = previewing.show(second)
    assert not shown.exact
    exact = Renderer(pipeline).render(second).astype(int)
    assert np.abs(shown.image - exact).mean() < np.abs(previewing.show(first).image - exact).mean()


def test_a_large_edit_is_exact_at_once(pipeline: Pipeline, opened: Document) -> None:
    renderer = Renderer(pipeline, Preview(pipeline))
    renderer.show(opened)
    assert renderer.show(opened.remove(max(opened.classes))).exact, "of a small image, the margin is all"


def test_another_document_is_exact_at_once(opened: Document, previewing: Renderer) -> None:
    previewing.show(opened)
    assert previewing.show(Document.of(opened.label[:, 1:], opened.ids[:, 1:])).exact


def test_beyond_the_memory_there_are_no_previews(
    pipeline: Pipeline, opened: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer_module, "MOST_SHARE", 1)
    renderer = Renderer(pipeline, Preview(pipeline, max_memory=1000))
    for document in (opened, opened.remove(max(opened.classes))):
        shown = renderer.show(document)
        assert shown.exact
        np.testing.assert_array_equal(shown.image, Renderer(pipeline).render(document))


def test_an_ended_picture_leaves_its_preview(opened: Document, previewing: Renderer) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    previewing.show(opened)
    edited = opened.remove(max(opened.classes))
    preview = previewing.show(edited)
    with pytest.raises(KeyboardInterrupt):
        previewing.render(edited, check)
    assert previewing.show(edited) is preview
    assert not previewing.show(opened.remove(min(opened.classes))).exact
