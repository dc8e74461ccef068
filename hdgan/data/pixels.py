"""The numbers that an image stores; Pillow alone would stretch those of few bits and reduce 16-bit colours to 8
bits."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

from hdgan.data.headers import SAMPLE_FORMAT, Header, pnm_white, tiff_tag
from hdgan.data.opening import ImageSource, first_tile, is_halved, named, opened, raw_mode, tiles_of
from hdgan.errors import DataError

# Of 16-bit colours Pillow reads the high bytes. In the opposite byte order it reads the low ones.
_OTHER_HALF = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def stored_pixels(source: ImageSource, image: Image.Image, header: Header) -> np.ndarray:
    """Decode the current page of an opened image.

    Args:
        source: what the image was opened from.
        image: from `opened(source)`.
        header: of this page.

    Returns:
        [H, W] or [H, W, C] in native byte order: uint8, uint16, int32, uint32 or float32, from 0 to `header.white`
            if there is one. Palettes give their indices.

    Raises:
        DataError: a PGM or PPM holds numbers above the greatest that it declares.
    """
    raw = raw_mode(image)
    if header.format == "PPM" and raw and header.mode in ("L", "I", "RGB"):
        return _pnm(source, image, header)
    if raw == "LA;16B":
        _read_as(image, "RGBA")  # the four bytes of a pixel as they are
        image.load()
        return _native(np.asarray(image).view(">u2"))
    if is_halved(image):
        image.load()
        high = np.asarray(image).astype(np.uint16) << 8
        with opened(source) as again:
            again.seek(image.tell())
            _read_as(again, raw[:-1] + _OTHER_HALF[raw[-1]])
            again.load()
            return high | np.asarray(again)
    signed = tiff_tag(image, SAMPLE_FORMAT, 1) == 2
    image.load()
    values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype == np.uint8 and signed:
        return values.view(np.int8).astype(np.int32)
    if values.dtype == np.int32 and header.format == "TIFF" and not signed:
        return values.view(np.uint32)
    if header.mode == "L" and header.white in (3, 15):
        return values // (255 // header.white)
    return _native(values)


def _pnm(source: ImageSource, image: Image.Image, header: Header) -> np.ndarray:
    """The pixels of a binary PGM or PPM, which Pillow would stretch to 8 or 16 bits."""
    white = pnm_white(image)
    width, height = header.size
    dtype = np.dtype(">u2" if white > 255 else "u1")
    n = width * height * header.channels
    file: Any = image.fp  # type: ignore[attr-defined]
    file.seek(first_tile(image)[2])
    content = file.read(n * dtype.itemsize)
    if len(content) < n * dtype.itemsize:
        raise ValueError("image file is truncated")
    values = _native(np.frombuffer(content, dtype))
    if values.max() > white:
        raise DataError(
            f"{named(source)} says that its numbers go up to {white}, but contains {values.max()}; save it again"
        )
    return values.reshape(height, width, *([] if header.channels == 1 else [header.channels]))


def _read_as(image: Image.Image, raw: str) -> None:
    """Make Pillow decode an image as if its pixels were stored in another raw mode."""
    tiles = []
    for tile in tiles_of(image):
        codec, box, offset, args = tile
        args = (raw, *args[1:]) if isinstance(args, tuple) else raw
        tiles.append(getattr(tile, "_make", tuple)((codec, box, offset, args)))
    image.tile = tiles  # type: ignore[attr-defined]


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
