"""Opening images: only known formats, within the limit on memory, and with a DataError for every failure."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from hdgan.data.scan import require_few_parts
from hdgan.errors import DataError
from hdgan.files import require_file
from hdgan.files.limits import VARIABLE, max_bytes
from hdgan.files.remote import RemotePath, fetched

ImageSource = Path | Image.Image

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
              MemoryError, RuntimeError, struct.error, zlib.error)  # fmt: skip
"""What Pillow and NumPy raise for damaged files."""

# Reading other formats could start programs (EPS), or give images of another size than declared (ICO).
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")
_TEXT_SHARE = 16
"""Text takes several times its size in Python, so it may use only this fraction of the memory limit."""


class NamedArray(np.ndarray):
    """An array that messages call by a name. So are those that are derived from it."""

    name: str

    @staticmethod
    def of(array: np.ndarray, name: str) -> NamedArray:
        """A view of an array."""
        view = array.view(NamedArray)
        view.name = name
        return view

    def __array_finalize__(self, source: object) -> None:
        self.name = getattr(source, "name", "the given array")


def named(source: object) -> str:
    """The name of an image in messages: its path, the name of a `NamedArray`, or the type of the given object."""
    if isinstance(source, NamedArray):
        return source.name
    return str(source) if isinstance(source, (str, Path)) else f"the given {type(source).__name__}"


@contextmanager
def opened(source: ImageSource) -> Iterator[Image.Image]:
    """Open an image without decoding its pixels. Any failure while it is open becomes a DataError that names it.

    A Pillow image is yielded itself. But if its pixels are not decoded yet and Pillow would change their numbers, it is
    opened again from its file, so that the given image stays as it is and can be read once more.
    """
    try:
        with _guards:
            if isinstance(source, RemotePath):
                content = BytesIO(fetched(source))
                require_few_parts(source, content=content)
                content.seek(0)
                with Image.open(content, formats=_FORMATS) as image:
                    yield image
                return
            if isinstance(source, Path):
                require_file(source, DataError)
                require_few_parts(source)
                with Image.open(source, formats=_FORMATS) as image:
                    yield image
                return
            page = source.tell()
            yield _anew(source) or source
            if source.tell() != page:
                source.seek(page)
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(source, error) from error


def damaged(source: object, error: BaseException) -> DataError:
    """The error for a file that Pillow or NumPy could not read."""
    reason = " ".join(str(error).split()).replace(f" {str(source)!r}", "") or type(error).__name__
    if "MAX_TEXT" in reason:
        size = max_bytes() // _TEXT_SHARE >> 20
        return DataError(
            f"{named(source)} contains text or a colour profile of more than {size} MiB in addition to its pixels: "
            f"save it without them, or set the environment variable {VARIABLE} to a larger number of GiB"
        )
    if isinstance(error, UnidentifiedImageError):
        reason = f"not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} with a known kind of pixels"
    remedy = "restore it from its source or save it again, or remove it with its partners"
    return DataError(f"{named(source)} cannot be read ({reason}); {remedy}")


def raw_mode(image: Image.Image) -> str:
    """Pillow's name for how the file stores its pixels; empty once they are decoded."""
    args = first_tile(image)[3]
    return str(args[0] if isinstance(args, tuple) else args or "")


def first_tile(image: Image.Image) -> tuple[Any, ...]:
    """Decoder, box, offset and arguments of the first tile of an image that is not decoded yet."""
    return next(iter(tiles_of(image)), ("", None, 0, None))


def tiles_of(image: Image.Image) -> list[tuple[Any, ...]]:
    """Pillow's tiles of an image that is not decoded yet."""
    return getattr(image, "tile", None) or []


def is_halved(image: Image.Image) -> bool:
    """Whether Pillow would read only the high bytes of 16-bit colours."""
    return ";16" in raw_mode(image) and image.mode in ("RGB", "RGBA", "CMYK") and image.format in ("PNG", "TIFF")


def _anew(image: Image.Image) -> Image.Image | None:
    """The same image, opened again from its file, if decoding the given one would lose numbers; else None."""
    few_bits = raw_mode(image).startswith(("L;2", "L;4", "I;12"))
    if not (few_bits or is_halved(image) or (image.format == "PPM" and raw_mode(image))):
        return None
    again = Image.open(image.fp, formats=_FORMATS)  # type: ignore[attr-defined]
    again.seek(image.tell())
    return again


_LIMITS = ((Image, "MAX_IMAGE_PIXELS"), (PngImagePlugin, "MAX_TEXT_CHUNK"), (PngImagePlugin, "MAX_TEXT_MEMORY"))


class _Guards:
    """While hdgan reads, in any thread, its own limit replaces Pillow's limits on huge images and texts."""

    def __init__(self) -> None:
        self.lock, self.readers = threading.Lock(), 0
        self.saved: list[int | None] = []

    def __enter__(self) -> None:
        with self.lock:
            if self.readers == 0:
                self.saved = [getattr(module, name) for module, name in _LIMITS]
                text = max_bytes() // _TEXT_SHARE
                self._set([None, text, text])
            self.readers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if self.readers == 0:
                self._set(self.saved)

    @staticmethod
    def _set(limits: list[int | None]) -> None:
        for (module, name), limit in zip(_LIMITS, limits, strict=True):
            setattr(module, name, limit)


_guards = _Guards()
