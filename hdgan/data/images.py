"""Reading pictures and maps: every id exactly as the file holds it, every damaged file named."""

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
import torch
from PIL import Image, ImageOps

from hdgan.errors import DataError

Kind = Literal["label map", "instance map", "input", "photo"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".ppm", ".npy"})
"""Endings, in lower case, of the files that count as pictures; a folder's other files are ignored."""

_EXACT_FORMATS = frozenset({"PNG", "TIFF", "BMP", "NPY"})
_MAP_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16L", "I;16B"})
_WIDE_MODES = frozenset({"I", "I;16", "I;16L", "I;16B"})
# Pillow stretches grey of 2 and 4 bits to 0..255; the ids are what was stored.
_STRETCH = {"L;2": 85, "L;4": 17}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_SAMPLE_FORMAT, _SAMPLES_PER_PIXEL, _ORIENTATION = 339, 277, 274
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded.

    Sizes are (width, height) in pixels. `upright` differs from `size` where an EXIF orientation swaps the sides.
    """

    size: tuple[int, int]
    upright: tuple[int, int]
    format: str
    mode: str
    channels: int
    orientation: int = 1
    frames: int = 1
    exact: bool = True


def read_header(path: Path) -> Header:
    """Read size and mode of a picture or .npy array without decoding it.

    Raises:
        DataError: the file is missing, damaged or not a picture.
    """
    if path.suffix.lower() == ".npy":
        array = _load_array(path)
        height, width, channels = array.shape
        return Header((width, height), (width, height), "NPY", array.dtype.name, channels)
    with _opened(path) as image:
        return _header_of(image)


def verify_checksums(path: Path) -> None:
    """Compare a PNG with its own checksums, which decoding leaves out: damaged pixels can decode without an error.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix.lower() != ".png":
        return
    with _opened(path) as image:
        image.verify()


def read_map(path: Path, kind: Kind = "label map") -> np.ndarray:
    """Read a label or instance map with the exact numbers of the file.

    Palette pictures give their indices, not their colours; an EXIF orientation is ignored.

    Args:
        path: PNG, TIFF or BMP of one channel, or .npy of integers, [H, W].
        kind: "label map" or "instance map", for the messages.

    Returns:
        [H, W] uint8, uint16 or int32.

    Raises:
        DataError: not one channel of integers, a lossy format, ids beyond int32, or an unreadable file.
    """
    if path.suffix.lower() == ".npy":
        require_map(path, read_header(path), kind)
        return _as_int32(path, np.asarray(_load_array(path))[..., 0])
    with _opened(path) as image:
        header = _header_of(image)
        require_map(path, header, kind)
        stretch = _STRETCH.get(_raw_mode(image), 1)
        sample_format = _tiff_tag(image, _SAMPLE_FORMAT, 1)
        image.load()
        values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if sample_format == 2 and values.dtype == np.uint8:
        return values.view(np.int8).astype(np.int32)
    if sample_format == 1 and values.dtype == np.int32 and header.format == "TIFF":
        return _as_int32(path, values.view(np.uint32))
    return values // stretch if stretch > 1 else values.astype(values.dtype.newbyteorder("="))


def require_map(path: Path, header: Header, kind: Kind) -> None:
    """Raise DataError unless a file with this header can hold the ids of a label or instance map."""
    if header.format not in _EXACT_FORMATS or not header.exact:
        raise DataError(
            f"{path}: this {kind} is {header.format}, which does not keep ids exactly; make it again as PNG, "
            "from the source rather than from this file"
        )
    if header.orientation != 1 and header.format == "TIFF":
        raise DataError(
            f"{path}: this {kind} has TIFF orientation {header.orientation}; save it without, so that "
            "its rows are stored from top to bottom"
        )
    whole = np.issubdtype(np.dtype(header.mode), np.integer) if header.format == "NPY" else header.mode in _MAP_MODES
    if not whole or header.channels != 1 or header.frames != 1:
        found = f"mode {header.mode} with {header.channels} channel(s) and {header.frames} page(s)"
        raise DataError(
            f"{path}: this {kind} has {found}; "
            "save one channel of integers (8- or 16-bit grey or palette PNG, 32-bit TIFF, integer .npy), "
            "or train without labels (n_labels 0) if its colours are the input"
        )


def read_photo(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Read a photo as 8-bit RGB; grey is repeated, transparency dropped, 16 bits are reduced to 8.

    A photo with an EXIF orientation is turned upright, as viewers and labelling tools show it, unless only the pixels
    as stored have the size of its map; `quick_check` and `check_dataset` tell how many are.

    Args:
        path: Any picture that Pillow reads.
        size: (width, height) of the map it belongs to, where there is one.

    Raises:
        DataError: 32-bit or float pixels, or an unreadable file.
    """
    if path.suffix.lower() == ".npy":
        raise DataError(f"{path}: a photo must be a picture, not .npy; save it as PNG")
    with _opened(path) as image:
        header = _header_of(image)
        image.load()
        if header.mode in ("I", "F"):
            raise DataError(f"{path}: this photo has mode {header.mode}; save it with 8 or 16 bits a channel")
        if header.format != "TIFF" and header.orientation != 1 and shown_size(header, size) == header.upright:
            image = ImageOps.exif_transpose(image)
        if header.mode in _WIDE_MODES:
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        return image.convert("RGB")


def shown_size(header: Header, size: tuple[int, int] | None) -> tuple[int, int]:
    """Size in which a photo is used beside a map of `size`: upright, unless only its stored size is the map's."""
    return header.size if size is not None and size == header.size != header.upright else header.upright


def read_input(path: Path) -> np.ndarray:
    """Read the input of an A-to-B model with all its channels.

    Palette pictures give their colours; pages of a TIFF are stacked as channels. Pillow reads 16-bit colour with 8 bits
    a channel: store such inputs as .npy, or as one 16-bit grey page a channel.

    Returns:
        [H, W, C] uint8, uint16 or float32.

    Raises:
        DataError: integers of more than 16 bits, values that are not finite, pages of different size, or an unreadable
            file.
    """
    if path.suffix.lower() == ".npy":
        return _as_input(path, np.asarray(_load_array(path)))
    with _opened(path) as image:
        header = _header_of(image)
        samples = _tiff_tag(image, _SAMPLES_PER_PIXEL, 1)
        if samples > 4:
            raise DataError(f"{path}: {samples} channels in one TIFF page; save the array [H, W, C] as .npy")
        pages = []
        for frame in range(header.frames):
            image.seek(frame)
            image.load()
            pages.append(_page(image, header))
    if len({page.shape[:2] for page in pages}) > 1:
        raise DataError(f"{path}: its {len(pages)} pages differ in size; save pages of one size")
    return _as_input(path, np.concatenate(pages, axis=2))


def to_photo(path: Path, values: np.ndarray) -> Image.Image:
    """Make an 8-bit RGB photo of an array from `read_input`, [H, W, C]; the file's name is for the message."""
    if values.dtype == np.uint16:
        values = (values // 257).astype(np.uint8)
    if values.dtype != np.uint8:
        raise DataError(f"{path}: a photo of type {values.dtype}; save it with 8 or 16 bits a channel")
    colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1].repeat(3, axis=2)
    return Image.fromarray(np.ascontiguousarray(colours))


def to_unit_range(values: np.ndarray) -> np.ndarray:
    """Bring an input to float32 in [-1, 1]: 8 bits v / 127.5 - 1, 16 bits v / 32767.5 - 1, floats as they are."""
    if values.dtype == np.uint8:
        return values.astype(np.float32) / 127.5 - 1
    if values.dtype == np.uint16:
        return values.astype(np.float32) / 32767.5 - 1
    return values.astype(np.float32, copy=False)


def class_of(ids: Any, divisor: int) -> Any:
    """Class of each instance id: id // divisor where id >= divisor, else the id itself.

    With divisor 1000 this is Cityscapes' rule: 26004 is the fifth car (class 26), and 7 is road without instances.

    Args:
        ids: numpy array or torch tensor of integers, any shape.
        divisor: `DataConfig.instance_divisor`.

    Returns:
        The same kind of array and shape; types narrower than 32 bits become int32.
    """
    if isinstance(ids, torch.Tensor):
        ids = ids.to(torch.promote_types(ids.dtype, torch.int32))
        return torch.where(ids < divisor, ids, ids // divisor)
    ids = ids.astype(np.promote_types(ids.dtype, np.int32), copy=False)
    return np.where(ids < divisor, ids, ids // divisor)


def _header_of(image: Image.Image) -> Header:
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
        exact=image.info.get("compression") != "jpeg",
    )


def _page(image: Image.Image, header: Header) -> np.ndarray:
    """One page as [H, W, C], upright, with palettes and print colours turned into RGB."""
    if header.format != "TIFF" and header.orientation != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _as_input(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{path}: input of type {array.dtype}; save uint8, uint16, or float32 scaled to [-1, 1]")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: input holds nan or inf; replace them with finite values")
    return array.astype(np.float32)


def _as_int32(path: Path, values: np.ndarray) -> np.ndarray:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < _INT32.min or high > _INT32.max:
        raise DataError(
            f"{path}: ids from {low} to {high} do not fit in 32 bits with sign; number them anew below 2^31"
        )
    return values.astype(np.int32)


def _load_array(path: Path) -> np.ndarray:
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


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels; known only before they are decoded."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
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
