"""Undo and redo without limit."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from hdgan.editor.document import Document


class History:
    """All states of a document, of which one is present.

    Maps are kept compressed, and states that differ in their styles alone share them.
    """

    def __init__(self, document: Document) -> None:
        self.present = document
        self._states = [_State.of(document)]
        self._now = 0

    @property
    def can_undo(self) -> bool:
        return self._now > 0

    @property
    def can_redo(self) -> bool:
        return self._now < len(self._states) - 1

    def push(self, document: Document) -> None:
        """Go on to a new state; what was undone before is gone. The present state itself is no new one."""
        if document is self.present:
            return
        del self._states[self._now + 1 :]
        same_maps = document.label is self.present.label and document.ids is self.present.ids
        last = self._states[-1]
        self._states.append(replace(last, rest=_without_maps(document)) if same_maps else _State.of(document))
        self._now += 1
        self.present = document

    def undo(self) -> None:
        """Go back one state; at the first nothing happens."""
        if self.can_undo:
            self._go(self._now - 1)

    def redo(self) -> None:
        """Go forward one state; at the last nothing happens."""
        if self.can_redo:
            self._go(self._now + 1)

    def _go(self, to: int) -> None:
        self.present = self._states[to].document()
        self._now = to


@dataclass(frozen=True)
class _State:
    """A document in little memory."""

    label: bytes
    ids: bytes
    shape: tuple[int, ...]
    rest: Document

    @staticmethod
    def of(document: Document) -> _State:
        label, ids = (zlib.compress(values.tobytes(), level=1) for values in (document.label, document.ids))
        return _State(label, ids, document.label.shape, _without_maps(document))

    def document(self) -> Document:
        label, ids = (
            np.frombuffer(zlib.decompress(data), np.int32).reshape(self.shape) for data in (self.label, self.ids)
        )
        return replace(self.rest, label=label, ids=ids)


_NOTHING = np.zeros((0, 0), np.int32)


def _without_maps(document: Document) -> Document:
    return replace(document, label=_NOTHING, ids=_NOTHING)
