"""Scale, rotate, crop and flip: a sample has one geometry, which applies to its label map, instance map and images."""

from __future__ import annotations

import math
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

    All are (width, height) or (left, top) in pixels; `corner` is in the scaled image. The scaled image is rotated about
    the centre of the crop by `angle`, in degrees; beyond its borders it is continued by its mirror image.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]
    flip: bool
    angle: float = 0.0


def sample_geometry(
    source: tuple[int, int],
    config: SizeConfig,
    rng: np.random.Generator | None = None,
    flip: bool = False,
    rotate: float = 0.0,
) -> Geometry:
    """Choose the geometry of one sample, at random where `rng` is given.

    Args:
        source: (width, height) of its files.
        config: Size of the sample.
        rng: Gives the corner of the crop, the flip and the angle; None centres the crop and never flips or rotates.
        flip: Whether half of the samples are mirrored.
        rotate: The greatest angle in degrees, either way.

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
    mirrored = bool(flip and rng.integers(2))
    # The angle is drawn last, so that crops and flips are the same with and without rotation.
    angle = float(rng.uniform(-rotate, rotate)) if rotate else 0.0
    return Geometry(source, scaled, (left, top), size, mirrored, angle)


def apply_to_map(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Transform ids by taking the nearest pixel, so that any integer stays exact.

    Args:
        values: [H, W] of any type, H and W those of `geometry.source`.
        geometry: From `sample_geometry`.

    Returns:
        [H, W] of the same type, H and W those of `geometry.size`; a view of `values` where nothing is scaled or
        rotated.
    """
    if geometry.angle:
        columns, rows = (
            np.minimum(positions * geometry.source[axis] / geometry.scaled[axis], geometry.source[axis] - 1)
            for axis, positions in enumerate(_rotated_positions(geometry))
        )
        return _flipped(values[rows.astype(np.int64), columns.astype(np.int64)], geometry)
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
    """Transform a photo with an antialiased filter.

    Args:
        photo: 8-bit image, or [H, W, C] uint8, uint16 or float32 in [-1, 1].
        geometry: From `sample_geometry`.
        filter: Used where it is scaled.

    Returns:
        [H, W, C] of the same type and range, or [H, W] for an image of one channel; a view of an array where nothing
        is scaled or rotated.
    """
    if isinstance(photo, np.ndarray) and not _is_rgb(photo):
        scaled = _limited(_scaled(photo, geometry, filter))
        return _flipped(_limited(_framed(scaled, geometry)), geometry)
    if geometry.scaled != geometry.source:
        image = photo if isinstance(photo, Image.Image) else Image.fromarray(np.ascontiguousarray(photo))
        photo = image.resize(geometry.scaled, _FILTERS[filter])
    return _flipped(_framed(np.asarray(photo), geometry), geometry)


def apply_to_input(values: np.ndarray, geometry: Geometry, filter: Filter = "bicubic") -> np.ndarray:
    """Transform an array of any number of channels, each like a photo.

    Args:
        values: [H, W, C] uint8, uint16 or float32.
        geometry: From `sample_geometry`.
        filter: Used where it is scaled.

    Returns:
        [H, W, C] of the same type; uint16 is rounded and limited to its range.
    """
    return _flipped(_framed(_scaled(values, geometry, filter), geometry), geometry)


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


def _scaled(values: np.ndarray, geometry: Geometry, filter: Filter) -> np.ndarray:
    """An array [H, W, C] scaled channel by channel, in its type."""
    if geometry.scaled == geometry.source:
        return values
    # Pillow filters 8-bit and float images of one channel; every 16-bit number is exact in float32.
    plain = values if values.dtype == np.uint8 else values.astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plain[..., c])).resize(geometry.scaled, _FILTERS[filter]))
        for c in range(values.shape[2])
    ]
    return _rounded(np.stack(channels, axis=2), values.dtype)


def _limited(values: np.ndarray) -> np.ndarray:
    """A photo of floats limited to [-1, 1], which bicubic filters overshoot."""
    return values.clip(-1, 1) if values.dtype == np.float32 else values


def _is_rgb(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 and values.shape[2:] == (3,)


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in a type; integers are rounded and limited to their range."""
    if dtype.kind != "u" or values.dtype == dtype:
        return values.astype(dtype, copy=False)
    return values.round().clip(0, np.iinfo(dtype).max).astype(dtype)


def _framed(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The crop of a scaled image [H, W] or [H, W, C], rotated if there is an angle."""
    if not geometry.angle:
        return _cropped(values, geometry)
    cos, sin = _direction(geometry)
    (left, top), (width, height) = geometry.corner, geometry.size
    # Pillow's matrix leads from pixels of the crop to pixels of the region that they lie in, which has a border of two
    # more for the bicubic filter. In 8 bits Pillow would cut off fractions instead of rounding.
    reach = (abs(cos) * width + abs(sin) * height) / 2, (abs(sin) * width + abs(cos) * height) / 2
    centre = left + width / 2, top + height / 2
    region = [
        np.arange(math.floor(middle - far) - 2, math.ceil(middle + far) + 3)
        for middle, far in zip(centre, reach, strict=True)
    ]
    columns, rows = (
        _mirrored(indices + 0.5, values.shape[1 - axis]).astype(np.int64) for axis, indices in enumerate(region)
    )
    x, y = (middle - indices[0] for middle, indices in zip(centre, region, strict=True))
    matrix = (
        cos, -sin, x - cos * width / 2 + sin * height / 2,
        sin, cos, y - sin * width / 2 - cos * height / 2,
    )  # fmt: skip
    surroundings = np.atleast_3d(values).take(rows, 0).take(columns, 1)
    rotated = []
    for channel in range(surroundings.shape[2]):
        plane = Image.fromarray(surroundings[..., channel].astype(np.float32))
        plane = plane.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        rotated.append(_rounded(np.asarray(plane), values.dtype))
    return np.stack(rotated, axis=2).reshape(height, width, *values.shape[2:])


def _rotated_positions(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Where the centre of each pixel of the crop lies in the scaled image: x and y, [H, W] float64."""
    cos, sin = _direction(geometry)
    (left, top), (width, height) = geometry.corner, geometry.size
    across = np.arange(width)[None, :] + 0.5 - width / 2
    down = np.arange(height)[:, None] + 0.5 - height / 2
    x = left + width / 2 + cos * across - sin * down
    y = top + height / 2 + sin * across + cos * down
    return _mirrored(x, geometry.scaled[0]), _mirrored(y, geometry.scaled[1])


def _direction(geometry: Geometry) -> tuple[float, float]:
    """Cosine and sine of the angle."""
    angle = math.radians(geometry.angle)
    return math.cos(angle), math.sin(angle)


def _mirrored(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions in [0, length] along an axis that continues beyond both ends by its mirror image."""
    return length - np.abs(positions % (2 * length) - length)


def _cropped(values: np.ndarray, geometry: Geometry) -> np.ndarray:
    (left, top), (width, height) = geometry.corner, geometry.size
    return values[top : top + height, left : left + width]


def _flipped(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    return array[:, ::-1] if geometry.flip else array
