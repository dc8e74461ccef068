"""Undo and redo without limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from hdgan.editor.document import Document

_BYTES_OF_STYLE = 500


class History:
    """All states of the documents that were opened one after the other, of which one is present.

    Maps are kept compressed, and states that differ in their styles alone share them. A history can be pickled.

    Args:
        document: first state.
        name: of it, as in `open`.
        prepare: called with a document before it becomes present; raises where it cannot, and nothing changes then.
    """

    def __init__(
        self, document: Document, name: str = "", prepare: Callable[[Document], object] = lambda document: None
    ) -> None:
        self._prepare = prepare
        self._states: list[_State] = []
        self._now = -1
        self.open(document, name)

    @property
    def can_undo(self) -> bool:
        return self._now > 0

    @property
    def can_redo(self) -> bool:
        return self._now < len(self._states) - 1

    @property
    def opening(self) -> Opening:
        """What the present state has come from."""
        return self._states[self._now].opening

    @property
    def unsaved(self) -> bool:
        """Whether a document, as it is or as it was left for another, is neither what was opened nor last saved."""
        left = {id(state.opening): state for state in self._states[: self._now + 1]}
        return any(state is not state.opening.kept for state in left.values())

    @property
    def n_bytes(self) -> int:
        """About what all states take in memory."""
        maps = {id(data): len(data) for state in self._states for data in (state.label, state.ids)}
        styles = sum(len(state.rest.styles.instances) for state in self._states)
        present = self.present.label.nbytes + self.present.ids.nbytes
        return sum(maps.values()) + styles * _BYTES_OF_STYLE + present

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "present"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.present = self._states[self._now].document()

    def open(self, document: Document, name: str) -> None:
        """Go on to another document; what was undone before is gone.

        Args:
            document: to go on to.
            name: under which it is to be saved.
        """
        opening = Opening(name)
        opening.kept = _State.of(document, opening)
        self._append(document, opening.kept)

    def push(self, document: Document) -> None:
        """Go on to a new state; what was undone before is gone. The present state itself is no new one."""
        if document is self.present:
            return
        last = self._states[self._now]
        same_maps = document.label is self.present.label and document.ids is self.present.ids
        rest = _without_maps(document)
        self._append(document, replace(last, rest=rest) if same_maps else _State.of(document, last.opening))

    def keep(self, name: str) -> None:
        """Note that the present state was saved under a name."""
        self.opening.name = name
        self.opening.kept = self._states[self._now]

    def undo(self) -> None:
        """Go back one state; at the first nothing happens."""
        if self.can_undo:
            self._go(self._now - 1)

    def redo(self) -> None:
        """Go forward one state; at the last nothing happens."""
        if self.can_redo:
            self._go(self._now + 1)

    def _append(self, document: Document, state: _State) -> None:
        self._prepare(document)
        self._states[self._now + 1 :] = [state]
        self._now += 1
        self.present = document

    def _go(self, to: int) -> None:
        document = self._states[to].document()
        self._prepare(document)
        self.present, self._now = document, to


@dataclass(eq=False)
class Opening:
    """A document that was opened, and what has become of it."""

    name: str
    """Under which it is to be saved."""
    number: int = field(default_factory=count().__next__)
    """No other opening has it."""
    kept: _State | None = None
    """The state that was opened or last saved."""


@dataclass(frozen=True, eq=False)
class _State:
    """A document in little memory."""

    label: bytes
    ids: bytes
    shape: tuple[int, ...]
    rest: Document
    opening: Opening

    @staticmethod
    def of(document: Document, opening: Opening) -> _State:
        label, ids = (zlib.compress(values.tobytes(), level=1) for values in (document.label, document.ids))
        return _State(label, ids, document.label.shape, _without_maps(document), opening)

    def document(self) -> Document:
        label, ids = (
            np.frombuffer(zlib.decompress(data), np.int32).reshape(self.shape) for data in (self.label, self.ids)
        )
        return replace(self.rest, label=label, ids=ids)


_NOTHING = np.zeros((0, 0), np.int32)


def _without_maps(document: Document) -> Document:
    return replace(document, label=_NOTHING, ids=_NOTHING)
