"""Noise and patterns, looked up by position in the world so that every resolution shows the same surface."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

SIZE = 512
Seed = int | np.ndarray  # one for all, or int32 [N]
Band = Literal["cloud", "clump", "grain"]
# Spatial frequencies, in cycles a table, and the exponent of their power: what makes clouds differ from sand.
_BANDS: dict[Band, tuple[float, float, float]] = {
    "cloud": (2, 120, 1.75),
    "clump": (9, 90, 1.0),
    "grain": (50, 200, 0.3),
}


@cache
def noise_table(band: Band) -> np.ndarray:
    """Tileable noise of mean 0 and standard deviation 1, float32 [SIZE, SIZE]."""
    low, high, exponent = _BANDS[band]
    rng = np.random.default_rng(sorted(_BANDS).index(band))
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    across = np.fft.rfftfreq(SIZE, 1 / SIZE)[None, :]  # [1, SIZE / 2 + 1]
    down = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None]  # [SIZE, 1]
    frequency = np.maximum(np.hypot(across, down), 1e-6)
    spectrum *= np.where((frequency >= low) & (frequency <= high), frequency**-exponent, 0)
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return (np.clip(noise / noise.std(), -3, 3)).astype(np.float32)


@cache
def _white() -> np.ndarray:
    return np.random.default_rng(99).random(1 << 16, dtype=np.float32)  # [65536]


def cell_hash(column: np.ndarray, row: np.ndarray, seed: Seed) -> np.ndarray:
    """One uniform number in [0, 1) for every cell of a grid; integer inputs [N], float32 result [N]."""
    return _white()[(column * 613 + row * 7919 + seed * 104729) & 0xFFFF]


def noise(band: Band, u: np.ndarray, v: np.ndarray, period: float, seed: Seed = 0) -> np.ndarray:
    """Noise at positions (u, v) [N], repeating after `period` units; nearest entry, for detail near a pixel's size."""
    scale = np.float32(SIZE / period)
    column = (u * scale).astype(np.int32) + (seed * 193)
    row = (v * scale).astype(np.int32) + (seed * 71)
    return noise_table(band).ravel()[((row & (SIZE - 1)) << 9) | (column & (SIZE - 1))]


def smooth_noise(band: Band, u: np.ndarray, v: np.ndarray, period: float, seed: Seed = 0) -> np.ndarray:
    """As `noise`, interpolated between entries, for patterns much larger than a pixel."""
    scale = np.float32(SIZE / period)
    return interpolated(noise_table(band), u * scale, v * scale, (seed * 193, seed * 71))


def interpolated(
    table: np.ndarray, column: np.ndarray, row: np.ndarray, shift: tuple[Seed, Seed] = (0, 0)
) -> np.ndarray:
    """Bilinear entries of a tileable table [n, n], n a power of 2, at positions [N], moved by whole entries."""
    n = len(table)
    left, top = np.floor(column), np.floor(row)
    x, y = column - left, row - top
    left = (left.astype(np.int32) + shift[0]) & (n - 1)
    top = (top.astype(np.int32) + shift[1]) & (n - 1)
    right, below = (left + 1) & (n - 1), ((top + 1) & (n - 1)) * n
    top = top * n
    flat = table.ravel()
    upper = flat[top + left]
    upper += x * (flat[top + right] - upper)
    lower = flat[below + left]
    lower += x * (flat[below + right] - lower)
    return upper + y * (lower - upper)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def masonry(
    u: np.ndarray,  # [N] metres along the courses
    v: np.ndarray,  # [N] metres across the courses
    pixel: np.ndarray,  # [N] metres covered by a pixel, across the courses
    size: tuple[float, float],
    joint: float,
    seed: Seed,
    contrast: float = 0.16,
) -> np.ndarray:
    """Brightness, around 1, of stones of `size` (length, height) metres laid in courses, float32 [N].

    Joints and differences between stones fade where a pixel covers more than a stone, as they do in a photo.
    """
    length, height = size
    course = np.floor(v * (1 / height))
    along = u * (1 / length) + 0.5 * (course - 2 * np.floor(course * 0.5))
    stone = np.floor(along)
    from_joint_u = (0.5 - np.abs(along - stone - 0.5)) * length
    from_joint_v = (0.5 - np.abs(v * (1 / height) - course - 0.5)) * height
    edge = np.minimum(from_joint_u, from_joint_v)
    tint = (cell_hash(stone.astype(np.int32), course.astype(np.int32), seed) - 0.5) * (2 * contrast)
    depth = 0.45 * np.clip(1 - edge * (1 / joint), 0, 1)
    # Even averaged over whole stones, the joints darken the surface a little.
    mean_depth = 0.45 * joint * (1 / length + 1 / height)
    weight = np.clip(1.5 - pixel * (1.6 / height), 0, 1)
    return 1 - mean_depth + weight * (tint - depth + mean_depth)
