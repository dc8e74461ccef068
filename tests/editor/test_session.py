from __future__ import annotations

import shutil

import numpy as np
import pytest

from hdgan.editor.context import EditorContext
from hdgan.editor.session import Session
from hdgan.errors import CheckpointError, ConfigError, DataError, HdganError

from .conftest import open_run


def select_object(session: Session) -> int:
    """Select an instance whose class has clusters, and return its id."""
    document, bank = session.document, session.context.bank
    id = next(id for id, label in document.classes.items() if id >= 1000 and label in bank.clusters)
    y, x = np.argwhere(document.mask(id))[0]
    session.select(x=x + 0.9, y=y + 0.1)
    assert session.selected == id
    return id


def test_a_session_begins_empty(context: EditorContext) -> None:
    session = Session(context)
    assert session.history is None
    for action in ("undo", "redo", "remove", "randomize"):
        with pytest.raises(ConfigError, match="no image is open"):
            getattr(session, action)()
    with pytest.raises(ConfigError, match="no image is open"):
        session.save("x")


def test_a_sample_has_the_styles_of_its_photo(session: Session) -> None:
    assert session.document.styles.instances.keys() == session.document.classes.keys()
    assert session.document.styles.encoder == session.context.pipeline.encoder_id


def test_an_unknown_sample_is_refused(session: Session) -> None:
    with pytest.raises(DataError, match="no sample 99"):
        session.open_sample(99)


def test_restyling_changes_the_image_most_in_the_object(session: Session) -> None:
    id = select_object(session)
    before = session.image()
    session.set_style(cluster=0)
    style = session.context.bank.style(session.document.classes[id], 0)
    assert session.document.styles.instances[id] == style
    change = np.abs(session.image().astype(int) - before)
    mask = session.document.mask(id)
    assert change[mask].mean() > change[~mask].mean()
    session.set_style(cluster=None)
    assert id not in session.document.styles.instances


def test_an_unknown_cluster_is_refused(session: Session) -> None:
    select_object(session)
    with pytest.raises(ConfigError, match="no cluster 99"):
        session.set_style(cluster=99)
    assert not session.history.can_undo  # type: ignore[union-attr]


@pytest.mark.parametrize("action", ["set_style", "set_class", "remove", "copy", "move"])
def test_without_selection_nothing_is_edited(session: Session, action: str) -> None:
    arguments = {"set_style": {"cluster": 0}, "set_class": {"label": 1}, "remove": {}}.get(action, {"dx": 1, "dy": 1})
    with pytest.raises(ConfigError, match="click one first"):
        getattr(session, action)(**arguments)


def test_an_object_of_a_new_class_stays_selected(session: Session) -> None:
    id = select_object(session)
    label = 5 - session.document.classes[id]  # 2 and 3
    session.set_class(label=label)
    assert session.selected != id
    assert session.document.classes[session.selected] == label  # type: ignore[index]
    assert session.document.styles.instances[session.selected].label == label  # type: ignore[index]
    session.set_class(label=label)
    session.undo()
    assert id in session.document.classes
    assert not session.history.can_undo  # type: ignore[union-attr]


@pytest.mark.parametrize("label", [-1, 4])
def test_unknown_classes_are_refused(session: Session, label: int) -> None:
    select_object(session)
    for action, arguments in (
        ("set_class", {"label": label}),
        ("brush", {"points": [(3, 3)], "width": 4, "label": label}),
    ):
        with pytest.raises(ConfigError, match=f"no class {label}: choose one from 0 to 3"):
            getattr(session, action)(**arguments)


def test_a_removed_object_is_no_longer_selected(session: Session) -> None:
    id = select_object(session)
    session.remove()
    assert session.selected is None
    assert id not in session.document.classes
    session.undo()
    assert id in session.document.classes


def test_a_painted_object_is_selected_and_has_a_style_of_its_class(session: Session) -> None:
    session.brush(points=[(4, 4), (12, 4)], width=5, label=3)
    id = session.selected
    assert id is not None
    assert session.document.classes[id] == 3
    assert session.document.at(8, 4) == id
    assert session.document.styles.instances[id].cluster is not None
    session.polygon(points=[(16, 8), (30, 8), (20, 15)], label=2)
    assert session.document.at(20, 11) == session.selected != id


def test_the_selected_object_is_enlarged(session: Session) -> None:
    id = select_object(session)
    session.brush(points=[(0.5, 0.5)], width=3, label=0, extend=True)
    assert session.selected == id
    assert session.document.at(0, 0) == id


def test_a_stroke_outside_enlarges_nothing(session: Session) -> None:
    select_object(session)
    with pytest.raises(ConfigError, match="would lie outside the image: draw it inside"):
        session.brush(points=[(-50, -50)], width=3, label=0, extend=True)
    assert not session.history.can_undo  # type: ignore[union-attr]


def shifted(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """A mask after a move, clipped to the image."""
    height, width = mask.shape
    y, x = np.nonzero(mask)
    y, x = y + dy, x + dx
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    result = np.zeros_like(mask)
    result[y[inside], x[inside]] = True
    return result


def test_copies_and_moves(session: Session) -> None:
    id = select_object(session)
    original = session.document.mask(id)
    style = session.document.styles.instances[id]
    session.copy(dx=4.4, dy=-2.6)
    copy = session.selected
    assert copy is not None
    assert copy != id
    placed = session.document.mask(copy)
    assert placed.any()
    np.testing.assert_array_equal(placed, shifted(original, 4, -3))
    np.testing.assert_array_equal(session.document.mask(id), original & ~placed)
    assert session.document.styles.instances[copy] == session.document.styles.instances[id] == style

    session.move(dx=-3.2, dy=1.6)
    assert session.selected == copy
    moved = session.document.mask(copy)
    assert (moved != placed).any()
    np.testing.assert_array_equal(moved, shifted(placed, -3, 2))
    assert session.document.styles.instances[copy] == style


def test_edits_without_effect_add_no_state(session: Session) -> None:
    id = select_object(session)
    session.set_style(cluster=0)
    session.set_style(cluster=0)
    y, x = np.argwhere(session.document.mask(id))[0]
    session.brush(points=[(x + 0.5, y + 0.5)], width=1, label=0, extend=True)
    session.undo()
    assert not session.history.can_undo  # type: ignore[union-attr]


def test_every_random_choice_of_styles_is_different(session: Session) -> None:
    drawn = []
    for _ in range(3):
        session.randomize()
        drawn.append({id: style.feature for id, style in session.document.styles.instances.items()})
    assert drawn[0].keys() == session.document.classes.keys()
    assert drawn[0] != drawn[1] != drawn[2]
    for _ in range(3):
        session.undo()
    assert not session.history.can_undo  # type: ignore[union-attr]
    session.redo()
    assert {id: style.feature for id, style in session.document.styles.instances.items()} == drawn[0]


def test_sessions_share_nothing(context: EditorContext, session: Session) -> None:
    other = Session(context)
    other.open_sample(0)
    before = other.image()
    select_object(session)
    session.remove()
    assert other.selected is None
    assert other.history is not None
    assert not other.history.can_undo
    np.testing.assert_array_equal(other.image(), before)


def test_a_failed_render_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(document: object) -> None:
        raise HdganError("no memory")

    id = select_object(session)
    monkeypatch.setattr(session.context.renderer, "show", fail)
    with pytest.raises(HdganError, match="no memory"):
        session.remove()
    assert id in session.document.classes
    assert session.selected == id
    assert not session.history.can_undo  # type: ignore[union-attr]


def test_a_run_without_clusters_names_the_remedy(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    session = Session(open_run(run, out=tmp_path))
    session.open_sample(0)
    with pytest.raises(CheckpointError, match="hdgan styles cluster"):
        session.randomize()
    session.brush(points=[(4, 4)], width=5, label=3)
    assert session.selected not in session.document.styles.instances
    assert session.context.choices(3) == []


def test_a_session_overwrites_only_its_own_documents(context: EditorContext, session: Session) -> None:
    folder = session.save("mine")
    before = (folder / "picture.png").read_bytes()
    session.randomize()
    assert session.save(" mine ") == folder
    assert (folder / "picture.png").read_bytes() != before

    other = Session(context)
    other.open_sample(1)
    with pytest.raises(ConfigError, match="choose another name"):
        other.save("mine")
    other.open_saved("mine")
    np.testing.assert_array_equal(other.image(), session.image())
    other.randomize()
    assert other.save("mine") == folder


def test_newer_documents_of_other_tabs_are_not_overwritten(context: EditorContext, session: Session) -> None:
    folder = session.save("shared")
    other = Session(context)
    other.open_saved("shared")
    other.randomize()
    other.save("shared")
    theirs = (folder / "picture.png").read_bytes()

    session.brush(points=[(4, 4)], width=5, label=3)
    with pytest.raises(ConfigError, match="shared was changed elsewhere: open it again, or choose another name"):
        session.save("shared")
    assert (folder / "picture.png").read_bytes() == theirs
    session.open_saved("shared")
    session.randomize()
    assert session.save("shared") == folder

    shutil.rmtree(folder)
    assert other.save("shared") == folder


def test_undo_returns_to_the_previous_document(session: Session) -> None:
    session.randomize()
    edited = session.document
    session.open_sample(1)
    assert session.document is not edited
    session.undo()
    np.testing.assert_array_equal(session.document.ids, edited.ids)
    assert session.document.styles == edited.styles
