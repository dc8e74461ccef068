"""Images inside of a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

JPEG_QUALITY = 90
LOSSLESS_PIXELS = 320
"""Images up to this width stay PNG."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside of a page."""

    title: str
    url: str
    """Contains the image itself."""
    width: int
    height: int
    """Size of the given image in pixels."""
    is_map: bool
    """Whether it is a map of classes or instances, which is enlarged without smoothing."""
    reduced: tuple[int, int] | None
    """Width and height in pixels of the embedded image where it is smaller than the one that was given."""


def embed(image: Image.Image, title: str, is_map: bool = False, largest: int | None = None) -> EmbeddedImage:
    """Put an image into a page. Maps stay exact, large photos become JPEG.

    Args:
        image: of any mode that PNG and JPEG can hold.
        title: what the page calls it.
        is_map: whether it shows classes or instances.
        largest: pixels of width and height beyond which the image is scaled down; None keeps its size.
    """
    width, height = image.size
    shown = image.copy()
    if largest is not None:
        shown.thumbnail((largest, largest), Image.Resampling.NEAREST if is_map else Image.Resampling.LANCZOS)
    kind: Literal["PNG", "JPEG"] = "PNG" if is_map or width <= LOSSLESS_PIXELS else "JPEG"
    url = data_url(shown, kind, optimize=True, quality=JPEG_QUALITY)
    return EmbeddedImage(title, url, width, height, is_map, shown.size if shown.size != image.size else None)


def data_url(image: Image.Image, kind: Literal["PNG", "JPEG"], **options: Any) -> str:
    """A URL that holds an image, so that a page needs no other file.

    Args:
        image: of a mode that the format can hold.
        kind: its format in the URL.
        options: of Pillow's writer.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
