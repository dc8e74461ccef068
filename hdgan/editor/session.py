"""One tab of the editor: its document, what is selected, and everything that can be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hdgan.editor import shapes
from hdgan.editor.document import Document
from hdgan.editor.files import State, folder_named, open_files, open_saved, save_document, state_of
from hdgan.editor.history import History
from hdgan.editor.studio import Studio
from hdgan.errors import ConfigError

UNNAMED = "picture"
"""Name of what was opened from elsewhere than the editor's folder."""


class Session:
    """What one tab edits; it shares nothing with others but the studio.

    Methods raise ConfigError, DataError or CheckpointError where something cannot be done, and change nothing then.

    Args:
        studio: the model, and where pictures come from and go.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.history: History | None = None
        self.selected: int | None = None
        self._drawings = 0
        self._states: dict[str, State] = {}  # of folders that it may write again, as it has opened or saved them
        self._actions: dict[str, Callable[..., None]] = {
            "select": self.select,
            "deselect": self.deselect,
            "style": self.choose_style,
            "class": self.change_class,
            "remove": self.remove,
            "brush": self.brush,
            "polygon": self.polygon,
            "copy": self.copy,
            "move": self.move,
            "random": self.restyle_all,
            "undo": self.undo,
            "redo": self.redo,
        }

    @property
    def document(self) -> Document:
        """The present state."""
        return self._opened().present

    def act(self, action: str, arguments: Mapping[str, Any]) -> None:
        """Do what the page asks for: call a method by the name that `_actions` gives it."""
        self._actions[action](**arguments)

    # Opening and saving. What was edited before comes back by undo.

    def open_sample(self, number: int) -> None:
        """Start from a held-out picture."""
        self._open(self.studio.sample(number), UNNAMED)

    def open_files(self, label: Path, instance: Path | None = None, look: Path | None = None) -> None:
        """Start from maps, and where `look` is given from the styles or the photo that it holds."""
        self._open(open_files(self.studio.pipeline, self.studio.max_pixels, label, instance, look), UNNAMED)

    def open_saved(self, name: str) -> None:
        """Go on with what was saved under a name."""
        folder = folder_named(self.studio.folder, name)
        state = state_of(folder)
        self._open(open_saved(folder, self.studio.pipeline, self.studio.max_pixels), folder.name)
        self._states[folder.name] = state

    def save(self, name: str) -> Path:
        """Write label map, instance map, styles and picture into a folder, and return it."""
        folder = folder_named(self.studio.folder, name)
        if folder.exists() and folder.name not in self._states:
            raise ConfigError(f"{folder} is there already: choose another name, or open it before you write it again")
        if folder.exists() and state_of(folder) != self._states[folder.name]:
            raise ConfigError(f"{folder} was saved elsewhere since: open it again, or choose another name")
        save_document(self.document, self.picture(), folder)
        self._states[folder.name] = state_of(folder)
        self._opened().keep(folder.name)
        return folder

    def picture(self) -> np.ndarray:
        """The present picture, [H, W, 3] uint8."""
        return self.studio.renderer.picture(self.document)

    # Selecting.

    def select(self, x: float, y: float) -> None:
        """Select the instance at a point."""
        self.selected = self.document.at(int(x), int(y))

    def deselect(self) -> None:
        self.selected = None

    # Editing. Coordinates and distances are in pixels.

    def choose_style(self, cluster: int | None) -> None:
        """Give the selected instance a style of its class; None is the mean of the class."""
        id = self._selection()
        style = None if cluster is None else self.studio.bank.style(self.document.classes[id], cluster)
        self._do(self.document.with_style(id, style))

    def change_class(self, label: int) -> None:
        """Make the selected instance one of another class."""
        self._require_class(label)
        id = self._selection()
        if self.document.classes[id] != label:
            self._add(lambda document: document.with_class(id, label), label)

    def remove(self) -> None:
        """Take the selected instance away; its surroundings fill its place."""
        self._do(self.document.remove(self._selection()))

    def brush(self, points: Sequence[shapes.Point], width: float, label: int, extend: bool = False) -> None:
        """Paint a new instance of a class, or more of the selected one."""
        self._paint(shapes.stroke(points, width, self.document.size), label, extend)

    def polygon(self, points: Sequence[shapes.Point], label: int, extend: bool = False) -> None:
        """As `brush`, but the inside of a polygon."""
        self._paint(shapes.polygon(points, self.document.size), label, extend)

    def copy(self, dx: float, dy: float) -> None:
        """Put a copy of the selected instance elsewhere and select it."""
        document, id = self.document.copy(self._selection(), round(dx), round(dy))
        self._do(document, id)

    def move(self, dx: float, dy: float) -> None:
        """Move the selected instance."""
        self._do(self.document.move(self._selection(), round(dx), round(dy)))

    def restyle_all(self) -> None:
        """Draw a style for every instance."""
        styles = self.studio.bank.sample(self.document.classes, self._drawings)
        self._drawings += 1
        self._do(self.document.restyled(styles))

    def undo(self) -> None:
        self._opened().undo()
        self._forget_lost_selection()

    def redo(self) -> None:
        self._opened().redo()
        self._forget_lost_selection()

    def _paint(self, mask: np.ndarray, label: int, extend: bool) -> None:
        if extend:
            self._do(self.document.extend(mask, self._selection()))
            return
        self._require_class(label)
        self._add(lambda document: document.paint(mask, label), label)

    def _add(self, change: Callable[[Document], tuple[Document, int]], label: int) -> None:
        """Make a change that gives an instance of a class, and let it look like one."""
        document, id = change(self.document)
        style = self.studio.new_style(id, label)
        self._do(document if style is None else document.with_style(id, style), id)

    def _do(self, document: Document, selected: int | None = None) -> None:
        self._opened().push(document)
        if selected is not None:
            self.selected = selected
        self._forget_lost_selection()

    def _open(self, document: Document, name: str) -> None:
        if self.history is None:
            self.history = History(document, name, self._render)
        else:
            self.history.open(document, name)
        self.selected = None

    def _render(self, document: Document) -> None:
        """A document becomes the present one once it has a picture."""
        self.studio.renderer.picture(document)

    def _opened(self) -> History:
        if self.history is None:
            raise ConfigError("no picture is open: choose a sample, or open a label map")
        return self.history

    def _selection(self) -> int:
        if self.selected is None:
            raise ConfigError("no object is selected: click one first")
        return self.selected

    def _require_class(self, label: int) -> None:
        if not 0 <= label < self.studio.pipeline.config.n_labels:
            raise ConfigError(
                f"the model has no class {label}: choose one from 0 to {self.studio.pipeline.config.n_labels - 1}"
            )

    def _forget_lost_selection(self) -> None:
        if self.selected not in self.document.classes:
            self.selected = None
