"""What a picture file says about itself before its pixels are decoded, and whether it suits what it is meant to be."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hdgan.errors import DataError

Kind = Literal["label map", "instance map", "input", "photo"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".pgm", ".ppm", ".npy"})
"""Endings, in lower case, of the files that count as pictures; a folder's other files are ignored."""

TURNED_TO_RGB = frozenset({"P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"})
"""Modes of Pillow that an A-to-B input is read as RGB from."""

_EXACT_FORMATS = frozenset({"PNG", "TIFF", "BMP", "PPM", "NPY"})
_MAP_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B"})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_ORIENTATION, _PHOTOMETRIC = 274, 262


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded.

    Sizes are (width, height) in pixels. `upright` differs from `size` where an EXIF orientation swaps the sides.
    `photometric` is the TIFF tag: 0 where white is stored as 0. `inexact` says why its pixels may not have the numbers
    that were saved; empty where they have.
    """

    size: tuple[int, int]
    upright: tuple[int, int]
    format: str
    mode: str
    channels: int
    orientation: int = 1
    frames: int = 1
    photometric: int = 1
    inexact: str = ""

    @property
    def input_channels(self) -> int:
        """Channels that `read_input` makes of the file: palettes become colours, pages are stacked."""
        return (3 if self.mode in TURNED_TO_RGB else self.channels) * self.frames


def read_header(path: Path) -> Header:
    """Read size and mode of a picture or .npy array without decoding it.

    Raises:
        DataError: the file is missing, damaged or not a picture.
    """
    if path.suffix.lower() == ".npy":
        array = load_array(path)
        height, width, channels = array.shape
        return Header((width, height), (width, height), "NPY", array.dtype.name, channels)
    with opened(path) as image:
        return header_of(image)


def verify_checksums(path: Path) -> None:
    """Compare a PNG with its own checksums, which decoding leaves out: damaged pixels can decode without an error.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix.lower() != ".png":
        return
    with opened(path) as image:
        image.verify()


def require_map(path: Path, header: Header, kind: Kind) -> None:
    """Raise DataError unless a file with this header can hold the ids of a label or instance map."""
    if header.inexact:
        raise DataError(
            f"{path}: this {kind} is {header.inexact}; make it again as PNG, from the source rather than from this file"
        )
    if header.orientation != 1 and header.format == "TIFF":
        raise DataError(
            f"{path}: this {kind} has TIFF orientation {header.orientation}; save it without, so that "
            "its rows are stored from top to bottom"
        )
    if header.photometric == 0:
        # Pillow inverts some of these and not others, so neither its numbers nor their complement can be trusted.
        raise DataError(
            f"{path}: this {kind} is a TIFF that stores white as 0 (PhotometricInterpretation 0), so its ids would be "
            "inverted; save it as BlackIsZero or PNG"
        )
    whole = np.issubdtype(np.dtype(header.mode), np.integer) if header.format == "NPY" else header.mode in _MAP_MODES
    if not whole or header.channels != 1 or header.frames != 1:
        found = f"mode {header.mode} with {header.channels} channel(s) and {header.frames} page(s)"
        raise DataError(
            f"{path}: this {kind} has {found}; "
            "save one channel of integers (8- or 16-bit grey or palette PNG, 32-bit TIFF, integer .npy), "
            "or train without labels (n_labels 0) if its colours are the input"
        )


def _require_black_as_zero(path: Path, header: Header, kind: Kind) -> None:
    """Pillow inverts what stores white as 0 in bitmaps and grey of up to 8 bits; other grey it reads as a negative."""
    if header.photometric == 0 and header.mode not in ("1", "L"):
        raise DataError(
            f"{path}: this {kind} is a TIFF of mode {header.mode} that stores white as 0 (PhotometricInterpretation "
            "0), which is read as a negative; save it as BlackIsZero or PNG"
        )


def require_photo(path: Path, header: Header) -> None:
    """Raise DataError unless a file with this header can be read as a photo."""
    if header.format == "NPY":
        raise DataError(f"{path}: a photo must be a picture, not .npy; save it as PNG")
    if header.mode in ("I", "F"):
        raise DataError(f"{path}: this photo has mode {header.mode}; save it with 8 or 16 bits a channel")
    _require_black_as_zero(path, header, "photo")


def require_input(path: Path, header: Header) -> None:
    """Raise DataError unless a file with this header can be the input of an A-to-B model."""
    dtype = np.dtype(header.mode) if header.format == "NPY" else np.dtype("int32" if header.mode == "I" else "uint8")
    if dtype not in (np.uint8, np.uint16) and not np.issubdtype(dtype, np.floating):
        raise DataError(f"{path}: input of type {dtype}; save uint8, uint16, or float32 scaled to [-1, 1]")
    _require_black_as_zero(path, header, "input")


def shown_size(header: Header, size: tuple[int, int] | None) -> tuple[int, int]:
    """Size in which a photo is used beside a map of `size`: upright, unless only its stored size is the map's."""
    return header.size if size is not None and size == header.size != header.upright else header.upright


def header_of(image: Image.Image) -> Header:
    """Header of an opened picture, before its pixels are decoded."""
    # Pillow decodes a PNG to look for EXIF behind its pixels; EXIF in front of them is in `info`.
    orientation = 1
    if image.format != "PNG" or "exif" in image.info:
        orientation = image.getexif().get(_ORIENTATION, 1)
    size = image.size
    upright = (size[1], size[0]) if orientation in (5, 6, 7, 8) else size
    if image.format == "TIFF":
        upright = size  # Pillow turns TIFF itself, and already gives the upright size
    return Header(
        size,
        upright,
        image.format or "",
        image.mode,
        len(image.getbands()),
        orientation,
        # A phone's MPO is a JPEG with previews behind it.
        getattr(image, "n_frames", 1) if image.format == "TIFF" else 1,
        tiff_tag(image, _PHOTOMETRIC, 1),
        _why_inexact(image),
    )


def _why_inexact(image: Image.Image) -> str:
    compression = image.info.get("compression")
    if image.format == "WEBP" or compression == "webp":
        return "WEBP, which may be lossy"
    if image.format not in _EXACT_FORMATS or compression == "jpeg":
        return f"{image.format if compression != 'jpeg' else 'JPEG in TIFF'}, which does not keep ids exactly"
    # Pillow stretches grey to 8 or 16 whole bits, and inverts bitmaps.
    if image.format == "PPM" and image.mode == "1":
        return "a PBM, which is read inverted"
    if image.format == "PPM" and _tile(image)[0] != "raw":
        return "a PGM in text or with another greatest value than 255 or 65535, which is not read as stored"
    return ""


def raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels; known only before they are decoded."""
    args = _tile(image)[3]
    return str(args[0] if isinstance(args, tuple) else args)


def _tile(image: Image.Image) -> tuple[Any, ...]:
    """Decoder, box, offset and arguments of the first part of a picture that is not decoded yet."""
    tiles = getattr(image, "tile", None)
    return tuple(tiles[0]) if tiles else ("", None, 0, None)


def load_array(path: Path) -> np.ndarray:
    """Map a .npy file into memory as [H, W, C]."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise _missing(path) from None
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{path}: array of shape {tuple(array.shape)}; save [H, W] or [H, W, C]")
    return array if array.ndim == 3 else array[..., None]


def tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """First value of a tag; `default` where it is absent or the picture is no TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture of any size; whatever goes wrong while it is read becomes a DataError that names the file."""
    try:
        with _large_pictures, Image.open(path) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise _missing(path) from None
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _missing(path: Path) -> DataError:
    return DataError(f"{path} does not exist; restore it, or start again so that the folder is listed anew")


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split()).replace(f" {str(path)!r}", "") or type(error).__name__
    remedy = "restore it from its source or save it anew, or remove it with its partners"
    return DataError(f"{path} cannot be read ({reason}); {remedy}")


class _LargePictures:
    """Lifts Pillow's guard against huge pictures while hdgan reads: a dataset's files are the user's own."""

    def __init__(self) -> None:
        self.lock, self.readers, self.limit = threading.Lock(), 0, Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self.lock:
            if self.readers == 0:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.readers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if self.readers == 0:
                Image.MAX_IMAGE_PIXELS = self.limit


_large_pictures = _LargePictures()
