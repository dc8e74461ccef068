"""The editing session of one browser tab: its document, its selection, and every operation on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdgan.editor.context import EditorContext
from hdgan.editor.document import Document
from hdgan.editor.history import History
from hdgan.editor.masks import Point, polygon_mask, stroke_mask
from hdgan.editor.renderer import Shown
from hdgan.editor.storage import (
    Fingerprint,
    document_folder,
    fingerprint,
    load_document,
    read_document,
    save_document,
)
from hdgan.errors import ConfigError

DEFAULT_NAME = "picture"
"""Name of a document that was not opened from the output folder."""


class Session:
    """What one browser tab edits. Sessions share only the context.

    Methods raise ConfigError, DataError or CheckpointError if an operation is impossible, and then change nothing. A
    session can be pickled, but without its context: set `context` again afterwards.

    Args:
        context: what all sessions share.
    """

    def __init__(self, context: EditorContext) -> None:
        self.context = context
        self.history: History | None = None
        self.selected: int | None = None
        self._n_draws = 0
        self._known: dict[str, Fingerprint] = {}  # documents that it opened or saved, and so may overwrite

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "context"}

    @property
    def document(self) -> Document:
        """The present state."""
        return self._opened().present

    def image(self, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """The generated image of the present state, [H, W, 3] uint8. `check` is as of `Renderer.render`."""
        return self.context.renderer.render(self.document, check)

    def shown(self) -> Shown:
        """The image of the present state, or a preview of it."""
        return self.context.renderer.show(self.document)

    # Opening and saving. Opening is a step of the history, so undo returns to the previous document.

    def open_sample(self, number: int) -> None:
        """Start from a held-out sample."""
        self._open(self.context.sample(number), DEFAULT_NAME)

    def open_files(self, label: Path, instance: Path | None = None, appearance: Path | None = None) -> None:
        """Start from files, as in `read_document`."""
        context = self.context
        self._open(read_document(context.pipeline, context.max_pixels, label, instance, appearance), DEFAULT_NAME)

    def open_saved(self, name: str) -> None:
        """Open the document that was saved under a name."""
        folder = document_folder(self.context.folder, name)
        known = fingerprint(folder)
        self._open(load_document(folder, self.context.pipeline, self.context.max_pixels), folder.name)
        self._known[folder.name] = known

    def save(self, name: str) -> Path:
        """Save label map, instance map, styles and image under a name, and return the folder."""
        folder = document_folder(self.context.folder, name)
        if folder.exists() and folder.name not in self._known:
            raise ConfigError(f"{folder} already exists: choose another name, or open it before you overwrite it")
        if folder.exists() and fingerprint(folder) != self._known[folder.name]:
            raise ConfigError(f"{folder} was changed elsewhere: open it again, or choose another name")
        save_document(self.document, self.image(), folder)
        self._known[folder.name] = fingerprint(folder)
        self._opened().mark_saved(folder.name)
        return folder

    # Actions of the page; `web.requests` lists them. Coordinates and distances are in pixels.

    def select(self, x: float, y: float) -> None:
        """Select the instance at a point."""
        self.selected = self.document.at(int(x), int(y))

    def deselect(self) -> None:
        self.selected = None

    def set_style(self, cluster: int | None) -> None:
        """Give the selected instance the style of a cluster of its class; None is the mean style of the class."""
        id = self._selection()
        style = None if cluster is None else self.context.bank.style(self.document.classes[id], cluster)
        self._push(self.document.with_style(id, style))

    def set_class(self, label: int) -> None:
        """Change the class of the selected instance."""
        self._require_class(label)
        id = self._selection()
        if self.document.classes[id] != label:
            self._add(*self.document.with_class(id, label), label)

    def remove(self) -> None:
        """Remove the selected instance; its surroundings fill its place."""
        self._push(self.document.remove(self._selection()))

    def brush(self, points: Sequence[Point], width: float, label: int, extend: bool = False) -> None:
        """Paint a new instance of a class with a brush, or enlarge the selected instance."""
        self._paint(stroke_mask(points, width, self.document.size), label, extend)

    def polygon(self, points: Sequence[Point], label: int, extend: bool = False) -> None:
        """Paint a new instance of a class as a polygon, or enlarge the selected instance."""
        self._paint(polygon_mask(points, self.document.size), label, extend)

    def copy(self, dx: float, dy: float) -> None:
        """Add a shifted copy of the selected instance and select it."""
        self._push(*self.document.copy(self._selection(), round(dx), round(dy)))

    def move(self, dx: float, dy: float) -> None:
        """Move the selected instance."""
        self._push(self.document.move(self._selection(), round(dx), round(dy)))

    def randomize(self) -> None:
        """Give every instance a random style of its class."""
        styles = self.context.bank.sample(self.document.classes, self._n_draws)
        self._n_draws += 1
        self._push(self.document.restyled(styles))

    def undo(self) -> None:
        self._opened().undo()
        self._drop_lost_selection()

    def redo(self) -> None:
        self._opened().redo()
        self._drop_lost_selection()

    def _paint(self, mask: np.ndarray, label: int, extend: bool) -> None:
        if extend:
            self._push(self.document.extend(mask, self._selection()))
        else:
            self._require_class(label)
            self._add(*self.document.paint(mask, label), label)

    def _add(self, document: Document, id: int, label: int) -> None:
        """Push a document with a new instance, after giving the instance a random style of its class."""
        style = self.context.new_style(id, label)
        self._push(document if style is None else document.with_style(id, style), id)

    def _push(self, document: Document, selected: int | None = None) -> None:
        self._opened().push(document)
        if selected is not None:
            self.selected = selected
        self._drop_lost_selection()

    def _open(self, document: Document, name: str) -> None:
        if self.history is None:
            self.history = History(document, name, self._render)
        else:
            self.history.open(document, name)
        self.selected = None

    def _render(self, document: Document) -> None:
        """A document becomes the present state only after its image, or a preview of it, was generated."""
        self.context.renderer.show(document)

    def _opened(self) -> History:
        if self.history is None:
            raise ConfigError("no image is open: choose a held-out image, or open a label map")
        return self.history

    def _selection(self) -> int:
        if self.selected is None:
            raise ConfigError("no object is selected: click one first")
        return self.selected

    def _require_class(self, label: int) -> None:
        n_labels = self.context.pipeline.config.n_labels
        if not 0 <= label < n_labels:
            raise ConfigError(f"the model has no class {label}: choose one from 0 to {n_labels - 1}")

    def _drop_lost_selection(self) -> None:
        if self.selected not in self.document.classes:
            self.selected = None
