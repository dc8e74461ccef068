"""Reading pictures and maps: every id exactly as the file holds it, every damaged file named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from hdgan.data.headers import (
    TURNED_TO_RGB,
    Header,
    Kind,
    header_of,
    load_array,
    opened,
    raw_mode,
    read_header,
    require_input,
    require_map,
    require_photo,
    shown_size,
    tiff_tag,
)
from hdgan.errors import DataError

_WIDE_MODES = frozenset({"I;16", "I;16L", "I;16B"})
# Pillow stretches grey of 2 and 4 bits to 0..255; the ids are what was stored.
_STRETCH = {"L;2": 85, "L;4": 17}
_SAMPLE_FORMAT, _SAMPLES_PER_PIXEL = 339, 277
_INT32 = np.iinfo(np.int32)
# PyTorch promotes no unsigned type of more than 8 bits.
_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


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
        return _as_int32(path, np.asarray(load_array(path))[..., 0])
    with opened(path) as image:
        header = header_of(image)
        require_map(path, header, kind)
        stretch = _STRETCH.get(raw_mode(image).removesuffix("R"), 1)  # R: bits in reverse, by TIFF's FillOrder 2
        sample_format = tiff_tag(image, _SAMPLE_FORMAT, 1)
        image.load()
        values = np.asarray(image)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if sample_format == 2 and values.dtype == np.uint8:
        return values.view(np.int8).astype(np.int32)
    if sample_format == 1 and values.dtype == np.int32 and header.format == "TIFF":
        return _as_int32(path, values.view(np.uint32))
    return values // stretch if stretch > 1 else values.astype(values.dtype.newbyteorder("="), copy=False)


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
        require_photo(path, read_header(path))
    with opened(path) as image:
        header = header_of(image)
        require_photo(path, header)
        image.load()
        if header.format != "TIFF" and header.orientation != 1 and shown_size(header, size) == header.upright:
            image = ImageOps.exif_transpose(image)
        if header.mode in _WIDE_MODES:
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        return image.convert("RGB")


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
        require_input(path, read_header(path))
        return _as_input(path, np.asarray(load_array(path)))
    with opened(path) as image:
        header = header_of(image)
        require_input(path, header)
        samples = tiff_tag(image, _SAMPLES_PER_PIXEL, 1)
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
        The same kind of array and shape; types narrower than 32 bits become int32, wider unsigned
            ones int64.
    """
    if isinstance(ids, torch.Tensor):
        ids = ids.to(_SIGNED.get(ids.dtype) or torch.promote_types(ids.dtype, torch.int32))
        return torch.where(ids < divisor, ids, ids // divisor)
    # NumPy would promote uint64 to float64.
    signed = np.int64 if ids.dtype == np.uint64 else np.promote_types(ids.dtype, np.int32)
    ids = ids.astype(signed, copy=False)
    return np.where(ids < divisor, ids, ids // divisor)


def _page(image: Image.Image, header: Header) -> np.ndarray:
    """One page as [H, W, C], upright, with palettes and print colours turned into RGB."""
    if header.format != "TIFF" and header.orientation != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in TURNED_TO_RGB:
        image = image.convert("RGB")
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _as_input(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(array).all():
        raise DataError(f"{path}: input holds nan or inf; replace them with finite values")
    return array.astype(np.float32, copy=False)


def _as_int32(path: Path, values: np.ndarray) -> np.ndarray:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < _INT32.min or high > _INT32.max:
        raise DataError(
            f"{path}: ids from {low} to {high} do not fit in 32 bits with sign; number them anew below 2^31"
        )
    return values.astype(np.int32)
