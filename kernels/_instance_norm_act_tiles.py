"""What both directions of instance_norm_act share: tiles of planes, and the statistics of planes.

A tile is BLOCK_PIXELS pixels of BLOCK_PLANES planes. In contiguous images its pixels are adjacent, in channels_last
images its planes are: the channels of one image.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

ALIGN = tl.constexpr(8)  # elements: 16 bytes of the narrowest dtype


class Planes(NamedTuple):
    """The planes of a group as one row of pixels each, cut in tiles."""

    group: tl.tensor
    exist: tl.tensor  # [1, BLOCK_PLANES]
    start: tl.tensor  # offset of the first tile
    lead: tl.tensor  # how far it begins before the first pixel
    pixels: tl.tensor
    tiles: tl.tensor


class Norm(NamedTuple):
    """What planes are normalised with, and the slope of the activation that follows."""

    mean: tl.tensor
    factor: tl.tensor
    shift: tl.tensor
    slope: tl.tensor


@triton.jit
def planes_of_group(
    group, planes, channels, CHANNELS_LAST: tl.constexpr, BLOCK_PLANES: tl.constexpr, WHOLE: tl.constexpr
):
    """The planes of a group: their number, image, channel, and which of them exist: all if WHOLE.

    Each is [1, BLOCK_PLANES], but numbers of a single plane are scalars, so that what is read by them is read once.
    """
    lane = 0 if BLOCK_PLANES == 1 else tl.arange(0, BLOCK_PLANES)[None, :]
    if CHANNELS_LAST:
        groups = (channels + BLOCK_PLANES - 1) // BLOCK_PLANES
        image = tl.cast(group // groups, tl.int64)
        channel = group % groups * BLOCK_PLANES + lane
        plane, image, exist = image * channels + channel, image + 0 * channel, channel < channels
    else:
        plane = tl.cast(group, tl.int64) * BLOCK_PLANES + lane
        image, channel, exist = plane // channels, plane % channels, plane < planes
    if WHOLE:
        exist = tl.full([1, BLOCK_PLANES], True, tl.int1)
    return plane, image, channel, exist


@triton.jit
def start_of(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST: tl.constexpr, LEADS: tl.constexpr):
    """Offset of the first pixel of planes in a dense image of so many pixels, and how far a tile begins before it.

    Where LEADS, one plane alone begins anywhere: its tiles begin where an aligned access can.
    """
    if CHANNELS_LAST:
        return image * pixels * pixel_stride + channel, 0
    elif LEADS:
        start = plane * pixels
        return start // ALIGN * ALIGN, (start % ALIGN).to(tl.int32)
    else:
        return plane * pixels, 0


@triton.jit
def count(begin, end, lead, pixels, BLOCK_PIXELS: tl.constexpr):
    """How many pixels of the plane tiles begin to end - 1 hold, at least 1, as float."""
    first = tl.maximum(tl.cast(begin, tl.int64) * BLOCK_PIXELS - lead, 0)
    last = tl.minimum(tl.cast(end, tl.int64) * BLOCK_PIXELS - lead, pixels)
    return tl.maximum(last - first, 1).to(tl.float32)


@triton.jit
def read(address, mask):
    """Load as float32, 0 where it is masked."""
    if mask is None:
        return tl.load(address).to(tl.float32)
    else:
        return tl.load(address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def read_of_planes(address, exist):
    """Load what there is one of for each plane, as float32: [1, planes], or a scalar for a single plane."""
    if exist.shape[1] == 1:
        return tl.load(address).to(tl.float32)
    else:
        return tl.load(address, mask=exist, other=0.0).to(tl.float32)


@triton.jit
def write_of_planes(address, value, exist):
    """Store what there is one of for each plane."""
    if exist.shape[1] == 1:
        address += tl.zeros([1, 1], tl.int32)
    tl.store(address, value, mask=exist)


@triton.jit
def inside_of(tile, lead, pixels, exist, BLOCK_PIXELS: tl.constexpr):
    """Which elements of a tile lie in their plane."""
    first = tl.cast(tile, tl.int64) * BLOCK_PIXELS - lead
    begin, end = tl.maximum(-first, 0).to(tl.int32), tl.minimum(pixels - first, BLOCK_PIXELS).to(tl.int32)
    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    return (i >= begin) & (i < end) & exist


@triton.jit
def is_full(tile, lead, pixels, BLOCK_PIXELS: tl.constexpr):
    """Whether all pixels of a tile lie in its planes, so that it needs no mask, by which accesses become narrow."""
    first = tl.cast(tile, tl.int64) * BLOCK_PIXELS - lead
    return (first >= 0) & (first + BLOCK_PIXELS <= pixels)


@triton.jit
def fold(x, FOLD: tl.constexpr):
    """x [n, planes] as sums [n / FOLD, planes], of what one thread holds."""
    if FOLD == 1:
        return x
    else:
        return tl.sum(tl.reshape(x, [FOLD, x.shape[0] // FOLD, x.shape[1]]), 0)


@triton.jit
def _deviations(x, tile, lead, pixels, pixel_stride, exist, pivot, BLOCK_PIXELS: tl.constexpr):
    """A tile less the pivots of its planes, 0 outside of the planes."""
    x += tl.cast(tile, tl.int64) * BLOCK_PIXELS * pixel_stride
    at = tl.arange(0, BLOCK_PIXELS)[:, None] * pixel_stride
    if is_full(tile, lead, pixels, BLOCK_PIXELS):
        d = read(x + at, exist) - pivot
    else:
        inside = inside_of(tile, lead, pixels, exist, BLOCK_PIXELS)
        d = tl.where(inside, read(x + at, inside) - pivot, 0.0)
    return d


@triton.jit
def statistics(
    x, begin, end, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS: tl.constexpr, FOLD: tl.constexpr
):  # fmt: skip
    """Means, less `shift`, and sums of squared deviations of tiles begin to end - 1, by plane.

    The pivot is the mean of the first tile. However far it is from the mean of all tiles, the squares about it add up
    to at most so many times the true sum of squares as there are tiles, plus 1: little cancels.
    """
    mean = tl.sum(_deviations(x, begin, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS), 0, keep_dims=True)
    pivot = shift + mean / count(begin, begin + 1, lead, pixels, BLOCK_PIXELS)
    sums = tl.full([BLOCK_PIXELS // FOLD, exist.shape[1]], 0.0, tl.float32)
    squares = tl.full([BLOCK_PIXELS // FOLD, exist.shape[1]], 0.0, tl.float32)
    for tile in range(begin, end):
        d = _deviations(x, tile, lead, pixels, pixel_stride, exist, pivot, BLOCK_PIXELS)
        sums += fold(d, FOLD)
        squares += fold(d * d, FOLD)
    total = tl.sum(sums, 0, keep_dims=True)
    mean = total / count(begin, end, lead, pixels, BLOCK_PIXELS)
    m2 = tl.sum(squares, 0, keep_dims=True) - total * mean
    return pivot - shift + mean, tl.where(m2 < 0, 0.0, m2)


@triton.jit
def finish(shift, mean, m2, pixels, eps):
    """Mean and 1 / standard deviation from those of `statistics`.

    As in PyTorch's norm, the latter is 0 for a constant plane where eps is 0.
    """
    variance = m2 / tl.cast(pixels, tl.float32) + eps
    return shift + mean, 1.0 / tl.where(variance == 0, float("inf"), tl.sqrt_rn(variance))


@triton.jit
def affine(weight, bias, channel, exist):
    """Scale and shift of planes."""
    scale, shift = tl.full(exist.shape, 1.0, tl.float32), tl.full(exist.shape, 0.0, tl.float32)
    if weight is not None:
        scale = read_of_planes(weight + channel, exist)
    if bias is not None:
        shift = read_of_planes(bias + channel, exist)
    return scale, shift
