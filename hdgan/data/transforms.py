"""Scale, crop and flip: each sample has one geometry, which applies to its label map, instance map and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from hdgan.config.options import option
from hdgan.data.config import PartName, SizeConfig
from hdgan.errors import DataError

Filter = Literal["bicubic", "lanczos"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


@dataclass(frozen=True)
class Geometry:
    """One sample is scaled from `source` to `scaled`, cropped to `size` at `corner`, and mirrored if `flip`.

    All are (width, height) or (left, top) in pixels; `corner` is in the scaled image.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]
    flip: bool


def sample_geometry(
    source: tuple[int, int], config: SizeConfig, rng: np.random.Generator | None = None, flip: bool = False
) -> Geometry:
    """Choose the geometry of one sample, at random where `rng` is given.

    Args:
        source: (width, height) of its files.
        config: Size of the sample.
        rng: Gives the corner of the crop and the flip; None centres the crop and never flips.
        flip: Whether half of the samples are mirrored.

    Raises:
        DataError: the crop is larger than the scaled image.
    """
    scaled = scaled_size(source, config)
    crop = (config.crop_width or config.crop_height, config.crop_height or config.crop_width)
    size = (crop[0] or scaled[0], crop[1] or scaled[1])
    spare = (scaled[0] - size[0], scaled[1] - size[1])
    if min(spare) < 0:
        width, crop_width, crop_height = (
            option(f"stages.STAGE.size.{name}") for name in ("width", "crop_width", "crop_height")
        )
        raise DataError(
            f"the crop of {size[0]}x{size[1]} is larger than the image, which is {scaled[0]}x{scaled[1]} after "
            f"scaling; set a smaller {crop_width} and {crop_height}, or a larger {width}"
        )
    if rng is None:
        return Geometry(source, scaled, (spare[0] // 2, spare[1] // 2), size, False)
    left, top = (int(rng.integers(room + 1)) for room in spare)
    return Geometry(source, scaled, (left, top), size, bool(flip and rng.integers(2)))


def apply_to_map(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Transform ids by taking the nearest pixel, so that any integer stays exact.

    Args:
        values: [H, W] of any type, H and W those of `geometry.source`.

    Returns:
        [H, W] of the same type, H and W those of `geometry.size`; a view of `values` where nothing is scaled.
    """
    if geometry.scaled == geometry.source:
        return _flipped(_cropped(values, geometry), geometry)
    columns, rows = (
        _nearest(geometry.source[axis], geometry.scaled[axis], geometry.corner[axis], geometry.size[axis])
        for axis in (0, 1)
    )
    if geometry.flip:
        columns = columns[::-1]
    return values[rows[:, None], columns[None, :]]


def apply_to_photo(photo: Image.Image | np.ndarray, geometry: Geometry, filter: Filter = "bicubic") -> np.ndarray:
    """Transform an 8-bit photo with an antialiased filter.

    Args:
        photo: Image, or its [H, W, C] uint8.
        geometry: From `sample_geometry`.
        filter: Used where it is scaled.

    Returns:
        [H, W, C] uint8, or [H, W] for one channel; a view of `photo` where it is an array and nothing is scaled.
    """
    if geometry.scaled != geometry.source:
        image = photo if isinstance(photo, Image.Image) else Image.fromarray(np.ascontiguousarray(photo))
        photo = image.resize(geometry.scaled, _FILTERS[filter])
    return _flipped(_cropped(np.asarray(photo), geometry), geometry)


def apply_to_input(values: np.ndarray, geometry: Geometry, filter: Filter = "bicubic") -> np.ndarray:
    """Transform an array of any number of channels, each like a photo.

    Args:
        values: [H, W, C] uint8, uint16 or float32.

    Returns:
        [H, W, C] of the same type; uint16 is rounded and limited to its range.
    """
    if geometry.scaled == geometry.source:
        return _flipped(_cropped(values, geometry), geometry)
    # Pillow filters 8-bit and float images of one channel; every 16-bit number is exact in float32.
    plain = values if values.dtype == np.uint8 else values.astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plain[..., c])).resize(geometry.scaled, _FILTERS[filter]))
        for c in range(values.shape[2])
    ]
    out = _flipped(_cropped(np.stack(channels, axis=2), geometry), geometry)
    return out.round().clip(0, 65535).astype(np.uint16) if values.dtype == np.uint16 else out


def apply_geometry(arrays: Mapping[PartName, Any], geometry: Geometry, filter: Filter) -> dict[PartName, np.ndarray]:
    """Transform the parts of one sample, each by its own function above."""
    parts: dict[PartName, np.ndarray] = {}
    for part, values in arrays.items():
        if part == "photo":
            parts[part] = apply_to_photo(values, geometry, filter)
        elif part == "input":
            parts[part] = apply_to_input(values, geometry, filter)
        else:
            parts[part] = apply_to_map(values, geometry)
    return parts


def scaled_size(source: tuple[int, int], config: SizeConfig) -> tuple[int, int]:
    """(width, height) to which an image of (width, height) `source` is scaled, before any crop."""
    width, height = source
    if config.width is not None:
        return config.width, config.height or max(1, round(config.width * height / width))
    if config.height is not None:
        return max(1, round(config.height * width / height)), config.height
    return source


def same_size_remedy() -> str:
    """The remedy for samples of one batch that differ in size."""
    width, height, crop = (option(f"stages.STAGE.size.{name}") for name in ("width", "height", "crop_width"))
    return f"set {width} and {height}, or {crop}, or {option('stages.STAGE.batch_size')} 1"


def _nearest(source: int, scaled: int, first: int, count: int) -> np.ndarray:
    """Source pixel under the centre of each of `count` scaled pixels from `first` on, in integers without rounding."""
    return (2 * np.arange(first, first + count, dtype=np.int64) + 1) * source // (2 * scaled)


def _cropped(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    (left, top), (width, height) = geometry.corner, geometry.size
    return values[top : top + height, left : left + width]


def _flipped(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    return array[:, ::-1] if geometry.flip else array
