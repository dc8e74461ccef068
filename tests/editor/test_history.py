from __future__ import annotations

import numpy as np
import pytest

from hdgan.editor.document import Document
from hdgan.editor.history import History
from hdgan.errors import ConfigError
from hdgan.styles import Style


def assert_same(one: Document, other: Document) -> None:
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_array_equal(one.ids, other.ids)
    assert one.styles == other.styles
    assert one.classes == other.classes
    assert one.divisor == other.divisor


def test_every_state_comes_back(document: Document) -> None:
    history, states = History(document), [document]
    for k in range(200):
        style = Style(2, (float(k), 0.0))
        states.append(states[-1].with_style(2000, style) if k % 3 else states[-1].move(2000, 1 - 2 * (k // 3 % 2), 0))
        history.push(states[-1])
    assert not history.can_redo
    for state in reversed(states[:-1]):
        history.undo()
        assert_same(history.present, state)
    assert not history.can_undo
    for state in states[1:]:
        history.redo()
        assert_same(history.present, state)


def test_at_the_ends_nothing_happens(document: Document) -> None:
    history = History(document)
    history.undo()
    history.redo()
    assert history.present is document


def test_a_new_state_discards_what_was_undone(document: Document) -> None:
    history = History(document)
    history.push(document.remove(2000))
    history.undo()
    other = document.remove(3000)
    history.push(other)
    assert not history.can_redo
    history.undo()
    assert_same(history.present, document)


def test_the_present_state_is_not_added_again(document: Document) -> None:
    history = History(document)
    history.push(document)
    assert not history.can_undo


def test_states_of_other_styles_share_their_maps(document: Document) -> None:
    history = History(document)
    history.push(document.with_style(3000, Style(3, (1.0, 1.0))))
    first, second = history._states
    assert first.label is second.label
    assert first.rest.styles != second.rest.styles


def test_maps_come_back_read_only(document: Document) -> None:
    history = History(document)
    history.push(document.remove(2000))
    history.undo()
    assert not history.present.label.flags.writeable
    assert history.present.remove(3000).classes == {0: 0, 1: 1, 2000: 2}


def test_a_failed_preparation_changes_nothing(document: Document) -> None:
    def prepare(wanted: Document) -> None:
        if refuse:
            raise ConfigError("no memory")

    refuse = False
    history = History(document, prepare=prepare)
    other = document.remove(2000)
    history.push(other)
    history.undo()
    refuse = True
    for change in (history.redo, lambda: history.push(other), lambda: history.open(other, "x")):
        with pytest.raises(ConfigError):
            change()
        assert_same(history.present, document)
        assert (history.can_undo, history.can_redo, history.origin.name) == (False, True, "")
    refuse = False
    history.redo()
    assert_same(history.present, other)
    refuse = True
    with pytest.raises(ConfigError):
        history.undo()
    assert history.present is not document
    assert history.can_undo


def test_unsaved_changes_are_known(document: Document) -> None:
    history = History(document, "first")
    assert not history.unsaved
    history.push(document.remove(2000))
    assert history.unsaved
    history.undo()
    assert not history.unsaved
    history.redo()
    history.mark_saved("mine")
    assert not history.unsaved
    history.undo()
    assert history.unsaved
    history.redo()
    assert not history.unsaved


def test_unsaved_changes_of_previous_documents_count(document: Document) -> None:
    history = History(document, "first")
    history.open(document.remove(2000), "second")
    assert not history.unsaved
    history.undo()
    assert not history.unsaved
    history.push(document.remove(3000))
    history.open(document, "second")
    assert history.unsaved
    history.mark_saved("mine")
    assert history.unsaved
    history.undo()
    history.mark_saved("theirs")
    history.redo()
    assert not history.unsaved


def test_each_opened_document_has_its_name(document: Document) -> None:
    history = History(document, "first")
    history.push(document.remove(2000))
    history.open(document, "second")
    history.mark_saved("mine")
    history.push(document.remove(3000))
    assert history.origin.name == "mine"
    history.undo()
    history.undo()
    assert history.origin.name == "first"
    history.mark_saved("saved")
    history.undo()
    assert history.origin.name == "saved"
