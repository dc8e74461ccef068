"""A session as its page shows it: values that JSON can hold."""

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
from hdgan.editor.context import EditorContext
from hdgan.editor.document import Document, bounding_box
from hdgan.editor.history import OpenedDocument
from hdgan.editor.session import Session
from hdgan.errors import HdganError
from hdgan.inference import Pipeline
from hdgan.reporting.images import data_url
from hdgan.styles import Style

_THUMBNAIL = 96
_OUTLINE_WIDTH = 3 / 1024
"""Width of the outline of the selected instance, as a fraction of the width of the image."""


class SupersededError(Exception):
    """A picture is not needed any more, or not yet."""


class SessionView:
    """Runs actions on a session and returns what the page shows afterwards. It can be pickled like the session.

    Args:
        session: the session of one tab.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._urls: dict[str, tuple[np.ndarray, str]] = {}
        self._shown_name: tuple[OpenedDocument, str] | None = None
        self._turn = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_urls": {}}

    def run(self, action: Callable[[Session], str | None], serial: int | None = None) -> dict[str, Any]:
        """Run an action and return what the page shows; errors become a message there.

        If the page cannot be drawn, only the message is returned. `name` is returned only when the page has to change
        it, because the user may be typing another name.

        Args:
            action: returns a confirmation if its effect is not visible.
            serial: number of the page's request.
        """
        start = time.monotonic()
        self._turn += 1
        message = confirmation = ""
        try:
            confirmation = action(self.session) or ""
        except Exception as error:  # a bug must not end the sessions of other tabs
            message = user_message(error, self.session.context.pipeline)
        try:
            content = self.content()
        except Exception as error:
            message, content = message or user_message(error, self.session.context.pipeline), {}
        if self.session.history is not None:
            origin = self.session.history.origin
            if self._shown_name != (origin, origin.name):
                self._shown_name = origin, origin.name
                content["name"] = origin.name
        seconds = time.monotonic() - start
        answer = {"message": message, "confirmation": confirmation, "serial": serial, "seconds": seconds}
        return content | answer | {"turn": self._turn}

    def refine(self, check: Callable[[], None]) -> dict[str, Any]:
        """Generate the image of which the page shows a preview, and return what changes on the page.

        If that fails, the preview stays, with a message.

        Args:
            check: called again and again. If it raises `SupersededError`, the page is to ask again later.
        """
        try:
            image = as_url(Image.fromarray(self.session.image(check)), "JPEG")
        except SupersededError:
            return {"preview": True, "turn": self._turn}
        except Exception as error:  # a bug must not end the sessions of other tabs
            message = user_message(error, self.session.context.pipeline)
            return {"preview": False, "turn": self._turn, "message": message}
        return {"preview": False, "turn": self._turn, "image": image}

    def content(self) -> dict[str, Any]:
        """Everything that the page draws."""
        context, history = self.session.context, self.session.history
        if history is None:
            return {"notes": context.notes, "size": None}
        document, selected = history.present, self.session.selected
        image, exact = self.session.shown()
        return {
            "notes": context.notes,
            "size": document.size,
            "label": self._url("label", document.label, lambda label: Image.fromarray(context.palette.paint(label))),
            "ids": self._url("ids", document.ids, colorize_ids),
            "image": as_url(Image.fromarray(image), "JPEG"),
            "preview": not exact,
            "canUndo": history.can_undo,
            "canRedo": history.can_redo,
            "unsaved": history.unsaved,
            "document": history.origin.number,
            "selected": None if selected is None else describe_instance(context, document, selected),
        }

    def _url(self, name: str, values: np.ndarray, paint: Callable[[np.ndarray], Image.Image]) -> str:
        """A map as a URL. It is encoded again only if it has changed, since most edits change only styles."""
        if name not in self._urls or self._urls[name][0] is not values:
            self._urls[name] = values, as_url(paint(values), "PNG")
        return self._urls[name][1]


def user_message(error: Exception, pipeline: Pipeline) -> str:
    """What the page says about an error. A bug also prints its traceback on the terminal."""
    if isinstance(error, HdganError):
        return str(error)
    if is_out_of_memory(error):
        options = ["--precision bfloat16"] if pipeline.precision == "float32" else []
        options += [] if pipeline.device.type == "cpu" else ["--device cpu"]
        restart = f", or start the editor with {' or '.join(options)}" if options else ""
        return f"The memory of {pipeline.device} is too small for this image: open a smaller image{restart}."
    traceback.print_exception(error, file=sys.stderr)
    return f"This is a bug in the editor ({type(error).__name__}: {error}). The terminal shows the traceback."


def describe_instance(context: EditorContext, document: Document, id: int) -> dict[str, Any]:
    """Class, style and outline of an instance, and the styles to choose from."""
    label = document.classes[id]
    style = document.styles.instances.get(id)
    return {
        "id": id,
        "label": label,
        "name": context.palette.name(label),
        "cluster": None if style is None else style.cluster,
        "mean": style is None,
        "style": _style_name(style, context.pipeline.config.feature_channels),
        "outline": as_url(outline(document.mask(id)), "PNG"),
        "choices": [
            as_url(thumbnail or _numbered_thumbnail(number), "JPEG")
            for number, (_, thumbnail) in enumerate(context.choices(label))
        ],
    }


def describe_classes(context: EditorContext) -> list[dict[str, Any]]:
    """Label, name and colour of each class."""
    palette, labels = context.palette, range(context.pipeline.config.n_labels)
    return [{"label": label, "name": palette.name(label), "color": palette.css_color(label)} for label in labels]


def as_url(image: Image.Image, format: Literal["PNG", "JPEG"]) -> str:
    """An image as a data URL. Photos are sent as JPEG, because encoding large ones as PNG is slow."""
    if format == "JPEG":
        return data_url(image, format, quality=95, subsampling=0)
    return data_url(image, format, compress_level=1)


def outline(mask: np.ndarray) -> Image.Image:
    """An overlay for a mask [H, W] bool: a white line at its border, a dark line inside it, and a light tint.

    Pixels outside the mask are fully transparent and all others are not, so the page finds the instance by alpha.
    """
    width = max(1, round(mask.shape[1] * _OUTLINE_WIDTH))
    box = bounding_box(mask)
    inside, pixels = mask[box], np.zeros((*mask.shape, 4), np.uint8)
    eroded = binary_erosion(inside, iterations=width)
    values = pixels[box]
    values[inside] = (255, 255, 255, 255)
    values[eroded] = (0, 0, 0, 160)
    values[binary_erosion(eroded, iterations=width)] = (255, 255, 255, 24)
    return Image.fromarray(pixels)


def _style_name(style: Style | None, n_features: int) -> str:
    if not n_features:
        return "none (the model was trained without features)"
    if style is None:
        return "mean of the class"
    return "its own, not from a cluster" if style.cluster is None else f"cluster {style.cluster}"


def _numbered_thumbnail(number: int) -> Image.Image:
    """A thumbnail for a cluster without one."""
    image = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), (226, 228, 232))
    center = (_THUMBNAIL / 2, _THUMBNAIL / 2)
    ImageDraw.Draw(image).text(center, str(number), (40, 44, 52), ImageFont.load_default(36), anchor="mm")
    return image
