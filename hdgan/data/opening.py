"""Opening pictures: only files of the known formats, never more than the limit in memory, every failure a DataError."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from hdgan.data.scan import require_few_parts
from hdgan.errors import DataError
from hdgan.files import require_file
from hdgan.files.limits import VARIABLE, max_bytes

Picture = Path | Image.Image

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
              MemoryError, RuntimeError, struct.error, zlib.error)  # fmt: skip
"""What Pillow and NumPy raise for damaged files."""

# Other formats could start programs (EPS), or hold pictures of another size than they say (ICO).
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM")
_TEXT_SHARE = 16
"""Text takes several times its size in Python, so it gets this part of the limit on what a file unpacks to."""


def named(source: object) -> str:
    """What a message calls a picture: its path, or what it was given as."""
    return str(source) if isinstance(source, (str, Path)) else f"the given {type(source).__name__}"


@contextmanager
def opened(picture: Picture) -> Iterator[Image.Image]:
    """A picture before its pixels are decoded; whatever goes wrong while it is read becomes a DataError that names it.

    A Pillow image is yielded itself. Where its pixels are not decoded yet, and Pillow would change their numbers, it is
    opened anew, so that the given one stays as it is and can be read as its file again.
    """
    try:
        with _guards:
            if isinstance(picture, Path):
                require_file(picture, DataError)
                require_few_parts(picture)
                with Image.open(picture, formats=_FORMATS) as image:
                    yield image
                return
            page = picture.tell()
            yield _anew(picture) or picture
            if picture.tell() != page:
                picture.seek(page)
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(picture, error) from error


def damaged(source: object, error: BaseException) -> DataError:
    """The error for a file that a library refused."""
    reason = " ".join(str(error).split()).replace(f" {str(source)!r}", "") or type(error).__name__
    if "MAX_TEXT" in reason:
        size = max_bytes() // _TEXT_SHARE >> 20
        return DataError(
            f"{named(source)} holds text or a colour profile of more than {size} MiB beside its pixels: save it "
            f"without, or set the environment variable {VARIABLE} to a larger number of GiB"
        )
    if isinstance(error, UnidentifiedImageError):
        reason = f"no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} with a known kind of pixels"
    remedy = "restore it from its source or save it anew, or remove it with its partners"
    return DataError(f"{named(source)} cannot be read ({reason}); {remedy}")


def raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels, as Pillow calls it; empty once they are decoded."""
    args = first_tile(image)[3]
    return str(args[0] if isinstance(args, tuple) else args or "")


def first_tile(image: Image.Image) -> tuple[Any, ...]:
    """Decoder, box, offset and arguments of the first part of a picture that is not decoded yet."""
    return next(iter(tiles_of(image)), ("", None, 0, None))


def tiles_of(image: Image.Image) -> list[tuple[Any, ...]]:
    """The parts of a picture that is not decoded yet."""
    return getattr(image, "tile", None) or []


def is_halved(image: Image.Image) -> bool:
    """Whether Pillow would read only the high bytes of 16-bit colours."""
    return ";16" in raw_mode(image) and image.mode in ("RGB", "RGBA", "CMYK") and image.format in ("PNG", "TIFF")


def _anew(image: Image.Image) -> Image.Image | None:
    """The same picture once more from its open file, if decoding the given image would lose numbers."""
    few_bits = raw_mode(image).startswith(("L;2", "L;4", "I;12"))
    if not (few_bits or is_halved(image) or (image.format == "PPM" and raw_mode(image))):
        return None
    again = Image.open(image.fp, formats=_FORMATS)  # type: ignore[attr-defined]
    again.seek(image.tell())
    return again


class _Guards:
    """Replaces Pillow's guards against huge pictures and texts, while hdgan reads, by hdgan's own limit."""

    def __init__(self) -> None:
        self.lock, self.readers = threading.Lock(), 0
        self.saved = self._current()

    @staticmethod
    def _current() -> tuple[int | None, int, int]:
        return Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY

    @staticmethod
    def _set(pixels: int | None, chunk: int, text: int) -> None:
        Image.MAX_IMAGE_PIXELS = pixels
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = chunk, text

    def __enter__(self) -> None:
        with self.lock:
            if self.readers == 0:
                text = max_bytes() // _TEXT_SHARE
                self.saved = self._current()
                self._set(None, text, text)
            self.readers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if self.readers == 0:
                self._set(*self.saved)


_guards = _Guards()
