"""What the page shows of a session, as JSON can hold it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from hdgan.data.colors import colorize_ids
from hdgan.devices import is_out_of_memory
from hdgan.editor.document import Document, box_of
from hdgan.editor.history import Opening
from hdgan.editor.session import Session
from hdgan.editor.studio import Studio
from hdgan.errors import HdganError
from hdgan.inference import Pipeline
from hdgan.reporting.images import data_url
from hdgan.styles import Style

_SWATCH = 96
_OUTLINE = 3 / 1024
"""Width of the line around the selected instance, as a share of the picture's."""


class Page:
    """A session as its page shows it. It can be pickled.

    Args:
        session: of one tab.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._label: tuple[np.ndarray, str] | None = None
        self._ids: tuple[np.ndarray, str] | None = None
        self._told: tuple[Opening, str] | None = None  # what was opened, and the name that the page has for it

    @property
    def n_bytes(self) -> int:
        """About what the documents and their maps as the page has them take in memory."""
        urls = sum(len(kept[1]) for kept in (self._label, self._ids) if kept is not None)
        return urls + (0 if self.session.history is None else self.session.history.n_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_label": None, "_ids": None}  # made anew from the document

    def answer(
        self, do: Callable[[Session], str | None], serial: int | None = None, loaded: bool = False
    ) -> dict[str, Any]:
        """Do something with the session and return its view; whatever goes wrong is said there.

        A view that cannot be made has the message alone. `name` is in it only where the page has to change it, since
        the user may be typing another.

        Args:
            do: returns what it has done, where that cannot be seen.
            serial: number of the page's request.
            loaded: the page knows nothing yet.
        """
        began = time.monotonic()
        message = done = ""
        try:
            done = do(self.session) or ""
        except Exception as error:  # be it a bug, the other tabs go on
            message = explain(error, self.session.studio.pipeline)
        try:
            view = self.view(message, done)
        except Exception as error:
            view = {"message": message or explain(error, self.session.studio.pipeline), "done": done}
        if self.session.history is not None:
            opening = self.session.history.opening
            if loaded or self._told != (opening, opening.name):
                self._told = opening, opening.name
                view["name"] = opening.name
        return view | {"serial": serial, "seconds": time.monotonic() - began}

    def view(self, message: str = "", done: str = "") -> dict[str, Any]:
        """Everything that the page needs to draw itself.

        Args:
            message: what could not be done, and the remedy.
            done: what has been done, where it cannot be seen.
        """
        studio, history = self.session.studio, self.session.history
        shared: dict[str, Any] = {"message": message, "done": done, "notes": studio.notes, "size": None}
        if history is None:
            return shared
        document, selected = history.present, self.session.selected
        return shared | {
            "size": document.size,
            "label": self._label_url(document.label),
            "ids": self._ids_url(document.ids),
            "picture": as_url(Image.fromarray(self.session.picture()), "JPEG"),
            "canUndo": history.can_undo,
            "canRedo": history.can_redo,
            "dirty": history.unsaved,
            "opening": history.opening.number,
            "selected": None if selected is None else describe(studio, document, selected),
        }

    # Maps are encoded anew only where they have changed: most edits change styles.

    def _label_url(self, label: np.ndarray) -> str:
        if self._label is None or self._label[0] is not label:
            self._label = label, as_url(Image.fromarray(self.session.studio.legend.paint(label)), "PNG")
        return self._label[1]

    def _ids_url(self, ids: np.ndarray) -> str:
        if self._ids is None or self._ids[0] is not ids:
            self._ids = ids, as_url(colorize_ids(ids), "PNG")
        return self._ids[1]


def explain(error: Exception, pipeline: Pipeline) -> str:
    """What a user is told about an error, and the remedy; where it is a bug the traceback goes to the terminal."""
    if isinstance(error, HdganError):
        return str(error)
    if is_out_of_memory(error):
        options = [] if pipeline.precision == "bfloat16" else ["--precision bfloat16"]
        options += [] if pipeline.device.type == "cpu" else ["--device cpu"]
        start = f", or start the editor with {' or '.join(options)}" if options else ""
        return f"This does not fit into the memory of {pipeline.device}: open a smaller picture{start}."
    traceback.print_exception(error, file=sys.stderr)
    return f"This is a bug of the editor ({type(error).__name__}: {error}); the terminal shows where."


def describe(studio: Studio, document: Document, id: int) -> dict[str, Any]:
    """The selected instance: what it is, its outline, and the styles that it may have."""
    label = document.classes[id]
    style = document.styles.instances.get(id)
    return {
        "id": id,
        "label": label,
        "name": studio.legend.name(label),
        "cluster": None if style is None else style.cluster,
        "mean": style is None,
        "style": _name_style(style, studio.pipeline.config.feature_channels),
        "outline": as_url(outline(document.mask(id)), "PNG"),
        "choices": [
            as_url(thumbnail or _swatch(str(number)), "JPEG")
            for number, (_, thumbnail) in enumerate(studio.choices(label))
        ],
    }


def legend_entries(studio: Studio) -> list[dict[str, Any]]:
    """Number, name and colour of each class."""
    legend, labels = studio.legend, range(studio.pipeline.config.n_labels)
    return [{"label": label, "name": legend.name(label), "colour": legend.colour(label)} for label in labels]


def as_url(image: Image.Image, format: Literal["PNG", "JPEG"]) -> str:
    """A picture as a URL that holds it. Photos go as JPEG, since PNG takes long to write them when they are large."""
    if format == "JPEG":
        return data_url(image, format, quality=95, subsampling=0)
    return data_url(image, format, compress_level=1)


def outline(mask: np.ndarray) -> Image.Image:
    """A mask [H, W] bool as a picture to lay over others: a white line, a dark one inside it, the rest transparent."""
    width = max(1, round(mask.shape[1] * _OUTLINE))
    box = box_of(mask)
    inside, lines = mask[box], np.zeros((*mask.shape, 4), np.uint8)
    without_rim = binary_erosion(inside, iterations=width)
    values = lines[box]
    values[inside] = (255, 255, 255, 255)
    values[without_rim] = (0, 0, 0, 160)
    values[binary_erosion(without_rim, iterations=width)] = (255, 255, 255, 24)
    return Image.fromarray(lines)


def _name_style(style: Style | None, n_features: int) -> str:
    if not n_features:
        return "none: the model was trained without features"
    if style is None:
        return "mean of the class"
    if style.cluster is not None:
        return f"cluster {style.cluster}"
    return "its own, no cluster's"


def _swatch(text: str) -> Image.Image:
    """A thumbnail for a cluster that has none."""
    image = Image.new("RGB", (_SWATCH, _SWATCH), (226, 228, 232))
    ImageDraw.Draw(image).text((_SWATCH / 2, _SWATCH / 2), text, (40, 44, 52), ImageFont.load_default(36), anchor="mm")
    return image
