"""Undo and redo without limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from hdgan.editor.document import Document


class History:
    """All states of the documents that were opened one after the other, one of which is present.

    Maps are stored compressed, and states that differ only in their styles share them. A history can be pickled.

    Args:
        document: the first state.
        name: its name, as in `open`.
        prepare: called with a document before it becomes present. If it raises, the history does not change.
    """

    def __init__(
        self, document: Document, name: str = "", prepare: Callable[[Document], object] = lambda document: None
    ) -> None:
        self._prepare = prepare
        self._states: list[_State] = []
        self._position = -1
        self.open(document, name)

    @property
    def can_undo(self) -> bool:
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        return self._position < len(self._states) - 1

    @property
    def origin(self) -> OpenedDocument:
        """The opened document that the present state was edited from."""
        return self._states[self._position].origin

    @property
    def unsaved(self) -> bool:
        """Whether the last state of any document up to the present one was neither opened nor saved like this."""
        last = {id(state.origin): state for state in self._states[: self._position + 1]}
        return any(state is not state.origin.saved for state in last.values())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "present"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.present = self._states[self._position].document()

    def open(self, document: Document, name: str) -> None:
        """Continue with another document, and discard what was undone.

        Args:
            document: the document.
            name: the name to save it under.
        """
        origin = OpenedDocument(name)
        origin.saved = _State.of(document, origin)
        self._append(document, origin.saved)

    def push(self, document: Document) -> None:
        """Add a state, unless it is the present one, and discard what was undone."""
        if document is self.present:
            return
        last = self._states[self._position]
        same_maps = document.label is self.present.label and document.ids is self.present.ids
        rest = _without_maps(document)
        self._append(document, replace(last, rest=rest) if same_maps else _State.of(document, last.origin))

    def mark_saved(self, name: str) -> None:
        """Record that the present state was saved under a name."""
        self.origin.name = name
        self.origin.saved = self._states[self._position]

    def undo(self) -> None:
        """Go back one state, if there is one."""
        self._go(self._position - 1)

    def redo(self) -> None:
        """Go forward one state, if there is one."""
        self._go(self._position + 1)

    def _append(self, document: Document, state: _State) -> None:
        self._prepare(document)
        self._states[self._position + 1 :] = [state]
        self._position += 1
        self.present = document

    def _go(self, position: int) -> None:
        if not 0 <= position < len(self._states):
            return
        document = self._states[position].document()
        self._prepare(document)
        self.present, self._position = document, position


@dataclass(eq=False)
class OpenedDocument:
    """A document as it was opened, from which states are edited."""

    name: str
    """The name to save it under."""
    number: int = field(default_factory=count().__next__)
    """Unique in this process."""
    saved: _State | None = None
    """The state that was opened or saved last."""


@dataclass(frozen=True, eq=False)
class _State:
    """A document in little memory."""

    label: bytes
    ids: bytes
    shape: tuple[int, ...]
    rest: Document
    origin: OpenedDocument

    @staticmethod
    def of(document: Document, origin: OpenedDocument) -> _State:
        label, ids = (zlib.compress(values.tobytes(), level=1) for values in (document.label, document.ids))
        return _State(label, ids, document.label.shape, _without_maps(document), origin)

    def document(self) -> Document:
        label, ids = (
            np.frombuffer(zlib.decompress(data), np.int32).reshape(self.shape) for data in (self.label, self.ids)
        )
        return replace(self.rest, label=label, ids=ids)


_NO_MAP = np.zeros((0, 0), np.int32)


def _without_maps(document: Document) -> Document:
    return replace(document, label=_NO_MAP, ids=_NO_MAP)
