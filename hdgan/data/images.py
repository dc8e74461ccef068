"""Reading images and maps: every number exactly as it is stored, or an error that names the image.

A path, a Pillow image and an array of the same image give the same result. A Pillow image that is not decoded yet is
read like its file. If it is decoded, the numbers are those that Pillow produced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hdgan.config.bounds import Depth
from hdgan.data.arrays import load_array, require_numbers
from hdgan.data.headers import (
    TURNED_TO_RGB,
    WHITES,
    WIDE_MODES,
    Header,
    Kind,
    header_of,
    header_of_array,
    require_input,
    require_map,
    require_photo,
    shown_size,
)
from hdgan.data.opening import ImageSource, named, opened
from hdgan.data.pixels import stored_pixels
from hdgan.errors import DataError
from hdgan.wording import count

Readable = ImageSource | np.ndarray
"""The possible sources of images and maps: a file, a Pillow image, or an array [H, W] or [H, W, C]."""

_INT32 = np.iinfo(np.int32)
_ROUNDING = 1e-5
"""By how much float32 may leave [-1, 1] when numbers of 8 or 16 bits are scaled to it."""
# PyTorch does not promote unsigned types of more than 8 bits.
_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def read_map(source: Readable, kind: Kind = "label map") -> np.ndarray:
    """Read a label or instance map with the exact numbers that are stored.

    Palette images give their indices, not their colours; an EXIF orientation is ignored.

    Args:
        source: PNG, TIFF, BMP or PGM of one channel, or .npy of integers, [H, W] or [H, W, 1]; or a Pillow image or
            array of that kind. One bit, which NumPy calls bool, gives 0 and 1.
        kind: "label map" or "instance map", for messages.

    Returns:
        [H, W] uint8, uint16 or int32.

    Raises:
        DataError: not one channel of integers, a lossy format, ids beyond int32, or an unreadable file.
    """
    array = _array_of(source)
    if array is not None:
        require_map(named(source), header_of_array(array), kind)
        return as_ids(source, array[..., 0])
    assert not isinstance(source, np.ndarray)
    with opened(source) as image:
        header = header_of(image, source)
        require_map(named(source), header, kind)
        return as_ids(source, stored_pixels(source, image, header))


def read_photo(source: Readable, size: tuple[int, int] | None = None) -> Image.Image:
    """Read a photo as 8-bit RGB; grey is repeated, transparency dropped, 16 bits are reduced to 8.

    A photo with an EXIF orientation is turned upright, as viewers and labelling tools show it, unless only the pixels
    as stored have the size of its map. `quick_check` and `check_dataset` report how many photos are turned.

    Args:
        source: an image file, a Pillow image, or an array of 8 or 16 bits.
        size: (width, height) of the map it belongs to, where there is one.

    Raises:
        DataError: 32-bit or float pixels, or an unreadable file.
    """
    if isinstance(source, np.ndarray):
        return to_photo(source, source)
    if isinstance(source, Path) and source.suffix.lower() == ".npy":
        require_photo(source, header_of_array(load_array(source)))
    with opened(source) as image:
        header = header_of(image, source)
        require_photo(named(source), header)
        if header.mode in WIDE_MODES or header.mode == "I":
            assert header.white
            grey = stored_pixels(source, image, header).astype(np.uint32) * 255 // header.white
            image = Image.fromarray(grey.astype(np.uint8))
        photo = _rgb(image)
        if header.orientation != 1 and header.format != "TIFF" and shown_size(header, size) == header.upright:
            photo = Image.fromarray(np.ascontiguousarray(_turned(np.asarray(photo), header.orientation)))
        return photo


def read_stored_photo(source: Readable, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photo with all its channels and bits, as `read_input` reads an input.

    Args:
        source: an image file, a Pillow image, or an array.
        size: as for `read_photo`.

    Returns:
        [H, W, C] uint8, uint16, or float32 in [-1, 1].

    Raises:
        DataError: as of `read_input`, or floats outside of [-1, 1].
    """
    values = _read_stored(source, "photo", size)
    require_unit_range(source, values)
    return values


def read_input(source: Readable) -> np.ndarray:
    """Read the input of an A-to-B model with all its channels, upright.

    Palette images give their colours; pages of a TIFF are stacked as channels. Numbers of other depths than 8 and 16
    bits are stretched to the next of them.

    Returns:
        [H, W, C] uint8, uint16 or float32.

    Raises:
        DataError: integers of more than 16 bits, values that are not finite, pages that differ in size or kind, or an
            unreadable file.
    """
    return _read_stored(source, "input", None)


def _read_stored(source: Readable, kind: Kind, size: tuple[int, int] | None) -> np.ndarray:
    array = _array_of(source)
    if array is not None:
        header = header_of_array(array)
        require_input(named(source), header, kind)
        return as_input(source, array, header.white, kind)
    assert not isinstance(source, np.ndarray)
    pages = []
    with opened(source) as image:
        first = header = header_of(image, source)
        for page in range(first.frames):
            if page:
                image.seek(page)
                header = header_of(image, source)
            require_input(named(source), header, kind)
            if (header.mode, header.white) != (first.mode, first.white):
                raise DataError(f"{named(source)}: its {first.frames} pages differ in mode; save pages of one kind")
            pages.append(_page(source, image, header, size))
    if len({page.shape[:2] for page in pages}) > 1:
        raise DataError(f"{named(source)}: its {len(pages)} pages differ in size; save pages of one size")
    return as_input(source, np.concatenate(pages, axis=2) if len(pages) > 1 else pages[0], first.white, kind)


def to_photo(source: object, values: np.ndarray) -> Image.Image:
    """Make an 8-bit RGB photo of an array.

    Args:
        source: where the array is from, for messages.
        values: uint8, uint16 or bool, [H, W] or [H, W, C]: grey, grey and opacity, RGB, or RGB and opacity.

    Raises:
        DataError: another type or number of channels.
    """
    require_numbers(named(source), values.shape, values.dtype)
    values = values if values.ndim == 3 else values[..., None]
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype.name not in ("uint8", "uint16"):
        raise DataError(f"{named(source)}: a photo of type {values.dtype}; save it with 8 or 16 bits per channel")
    if values.shape[2] > 4:
        raise DataError(f"{named(source)}: a photo of {count(values.shape[2], 'channel')}; save it as RGB")
    colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    if values.dtype.itemsize == 2:
        # As in files: Pillow takes the high bytes of all that have several channels.
        colours = colours >> 8 if values.shape[2] > 1 else colours // 257
    colours = colours.astype(np.uint8, copy=False)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))))


def require_unit_range(source: object, values: np.ndarray, kind: Kind = "photo") -> None:
    """Raise DataError if an image of floats has values outside of [-1, 1], which no model can generate of a photo."""
    if values.dtype == np.float32:
        require_range(source, float(values.min()), float(values.max()), kind)


def require_range(source: object, low: float, high: float, kind: Kind) -> None:
    """Raise DataError if an image whose values are from `low` to `high` leaves [-1, 1] by more than rounding."""
    if not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
        raise DataError(f"{named(source)}: this {kind} has values from {low:.6g} to {high:.6g}; scale them to [-1, 1]")


def require_finite(source: object, finite: bool, kind: Kind) -> None:
    """Raise DataError unless all values of an image of floats are finite."""
    if not finite:
        raise DataError(f"{named(source)}: {kind} contains nan or inf; replace them with finite float32 values")


def to_unit_range(values: np.ndarray) -> np.ndarray:
    """Convert an input to float32 in [-1, 1]: 8 bits v / 127.5 - 1, 16 bits v / 32767.5 - 1, floats unchanged."""
    white = WHITES.get(values.dtype.name)
    return values.astype(np.float32, copy=False) if white is None else values.astype(np.float32) / (white / 2) - 1


def from_unit_range(image: torch.Tensor, depth: Depth) -> np.ndarray:
    """The inverse of `to_unit_range`: round an image to the numbers that its file will hold.

    Args:
        image: [C, H, W] of any float type. Values outside of [-1, 1] are limited to it.
        depth: of the result.

    Returns:
        [H, W, C] in native byte order.
    """
    values = image.detach().float().cpu().clamp(-1, 1).permute(1, 2, 0)
    if depth in WHITES:
        values = ((values + 1) * (WHITES[depth] / 2)).round()
    return np.ascontiguousarray(values.numpy().astype(depth))


def class_of(ids: Any, divisor: int) -> Any:
    """Class of each instance id: id // divisor where id >= divisor, else the id itself.

    With divisor 1000 this is Cityscapes' rule: 26004 is the fifth car (class 26), and 7 is road without instances.

    Args:
        ids: numpy array or torch tensor of integers, any shape.
        divisor: `DataConfig.instance_divisor`.

    Returns:
        An array or tensor of the same shape. Types narrower than 32 bits become int32, wider unsigned ones int64.
    """
    if isinstance(ids, torch.Tensor):
        ids = ids.to(_SIGNED.get(ids.dtype) or torch.promote_types(ids.dtype, torch.int32))
        return torch.where(ids < divisor, ids, ids // divisor)
    # NumPy would promote uint64 to float64.
    signed = np.int64 if ids.dtype == np.uint64 else np.promote_types(ids.dtype, np.int32)
    ids = ids.astype(signed, copy=False)
    return np.where(ids < divisor, ids, ids // divisor)


def _array_of(source: Readable) -> np.ndarray | None:
    """The array [H, W, C] that is given or that a .npy file holds; None for images."""
    if isinstance(source, Path) and source.suffix.lower() == ".npy":
        return load_array(source)
    if not isinstance(source, np.ndarray):
        return None
    require_numbers(named(source), source.shape, source.dtype)
    return source if source.ndim == 3 else source[..., None]


def _page(source: ImageSource, image: Image.Image, header: Header, size: tuple[int, int] | None) -> np.ndarray:
    """One page as [H, W, C], with palettes and print colours turned into RGB, upright as `shown_size` says."""
    if header.mode in TURNED_TO_RGB:
        image.load()
        array = np.asarray(_rgb(image))
    else:
        array = stored_pixels(source, image, header)
    if header.orientation != 1 and header.format != "TIFF" and shown_size(header, size) == header.upright:
        array = _turned(array, header.orientation)
    return array if array.ndim == 3 else array[..., None]


def _rgb(image: Image.Image) -> Image.Image:
    """An image in RGB. Its opacity is dropped, without Pillow's warning for palettes with opacity."""
    return (image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image).convert("RGB")


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W] or [H, W, C], turned upright by their EXIF orientation."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def as_input(source: object, array: np.ndarray, white: int | None, kind: Kind) -> np.ndarray:
    """Turn the stored numbers of an image into those of `read_input`.

    Args:
        source: where they are from, for messages.
        array: of any shape, in any byte order, or bool with a `white` of 1.
        white: the stored number that means full brightness; None for floats.
        kind: what the image is, for messages.

    Returns:
        uint8 or uint16, to which integers of fewer bits are stretched, or float32. It may be `array` itself.

    Raises:
        DataError: a float is not finite.
    """
    if white is None:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        require_finite(source, bool(np.isfinite(array).all()), kind)
        return array
    if 255 % white == 0:
        return np.asarray(array) * np.uint8(255 // white) if white < 255 else np.asarray(array)
    if white == 65535:
        return array.astype(np.uint16, copy=False)
    return ((array.astype(np.uint32) * 65535 + white // 2) // white).astype(np.uint16)


def as_ids(source: object, values: np.ndarray) -> np.ndarray:
    """Turn the stored numbers of a map into those of `read_map`.

    Args:
        source: where they are from, for messages.
        values: integers of any shape, in any byte order, or bool.

    Returns:
        uint8, uint16 or int32; of bool 0 and 1. It may be `values` itself.

    Raises:
        DataError: a number does not fit into int32.
    """
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize < 4:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    low, high = int(values.min()), int(values.max())
    if low < _INT32.min or high > _INT32.max:
        raise DataError(
            f"{named(source)}: ids from {low} to {high} do not fit into signed 32-bit integers; renumber them below "
            "2^31"
        )
    return values.astype(np.int32, copy=False)
