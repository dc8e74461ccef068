"""Sums of the backward kernel of instance_norm_act: of dz and of dz (x - mean), over planes.

They are taken over the pixels of the padded output, each with the source that it was made of.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels._instance_norm_act_pixels import (
    end_of,
    exists,
    pixels_of,
    read_shifted,
    source_of,
    tiles_of,
    whole_groups,
)
from hdgan.kernels._instance_norm_act_tiles import fold, inside_of, is_full, read


@triton.jit
def before_activation(g, x, norm, ACTIVATION: tl.constexpr):
    """The gradient g of the activation's output, as that of its input."""
    if ACTIVATION == "relu":
        return tl.where((x - norm.mean) * norm.factor + norm.shift <= 0, 0.0, g)
    elif ACTIVATION == "leaky_relu":
        return tl.where((x - norm.mean) * norm.factor + norm.shift <= 0, g * norm.slope, g)
    else:
        return g


@triton.jit
def _add(sum0, sum1, g, x, norm, ACTIVATION: tl.constexpr, FOLD: tl.constexpr):
    """Add a tile to the sums of dz and of dz (x - mean). What is not to count has no g, and an x that is finite."""
    dz = before_activation(g, x, norm, ACTIVATION)
    return sum0 + fold(dz, FOLD), sum1 + fold(dz * (x - norm.mean), FOLD)


@triton.jit
def _sums_flat(
    dy, x, begin, end, planes, size, norm,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Sums [1, planes] of tiles begin to end - 1 of planes that are one row of pixels each."""
    sum0 = tl.full([BLOCK // FOLD, planes.exist.shape[1]], 0.0, tl.float32)
    sum1 = tl.full([BLOCK // FOLD, planes.exist.shape[1]], 0.0, tl.float32)
    i = tl.arange(0, BLOCK)[:, None]
    for tile in range(begin, end):
        at = planes.start + tl.cast(tile, tl.int64) * BLOCK * size.pixel_stride + i * size.pixel_stride
        if is_full(tile, planes.lead, planes.pixels, BLOCK):
            g, value = read(dy + at, planes.exist), read(x + at, planes.exist)
        else:
            inside = inside_of(tile, planes.lead, planes.pixels, planes.exist, BLOCK)
            g, value = read(dy + at, inside), read(x + at, inside)
        sum0, sum1 = _add(sum0, sum1, g, value, norm, ACTIVATION, FOLD)
    return tl.sum(sum0, 0, keep_dims=True), tl.sum(sum1, 0, keep_dims=True)


@triton.jit
def _sums_of_pixels(
    dy, x, begin, end, image, planes, size, norm, ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr,
    PLACES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr, LARGE: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Sums [1, planes] of a share of the planes that dy and x point to, pixel by pixel."""
    sum0 = tl.full([BLOCK // FOLD, planes.exist.shape[1]], 0.0, tl.float32)
    sum1 = tl.full([BLOCK // FOLD, planes.exist.shape[1]], 0.0, tl.float32)
    row, block = begin // image.across - size.pad + tl.zeros([1, 1], tl.int32), begin % image.across
    STEP: tl.constexpr = BLOCK if PLACES == "wide" else 1
    first, last = tiles_of(begin, end, image, PLACES, VECTOR)
    for tile in range(first, last, STEP):
        i, j, inside = pixels_of(tile, row, block, begin, end, image, planes, PLACES, BLOCK, VECTOR, LARGE)
        at = ((i + size.pad) * image.width + (j + size.pad)) * size.pixel_stride
        inside = inside & exists(i, size.height, PAD_MODE) & exists(j, size.width, PAD_MODE)
        i, j = source_of(i, size.height, PAD_MODE), source_of(j, size.width, PAD_MODE)
        g, value = read(dy + at, inside), read(x + (i * size.width + j) * size.pixel_stride, inside)
        sum0, sum1 = _add(sum0, sum1, g, value, norm, ACTIVATION, FOLD)
        if PLACES == "rows":
            block += 1
            row, block = tl.where(block == image.across, row + 1, row), tl.where(block == image.across, 0, block)
    return tl.sum(sum0, 0, keep_dims=True), tl.sum(sum1, 0, keep_dims=True)


@triton.jit
def _sums_of_rows(
    dy, x, group, begin, end, size, norm,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Sums of rows begin to end - 1 of plane number `group`, where whole groups of 16 bytes lie inside of padding."""
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    height, width, pad = size.height, size.width, size.pad
    sum0 = tl.full([BLOCK_GROUPS, VECTOR], 0.0, tl.float32)
    sum1 = tl.full([BLOCK_GROUPS, VECTOR], 0.0, tl.float32)
    for padded_row in range(begin, end):
        row = padded_row - pad
        at = (tl.cast(group, tl.int64) * (height + 2 * pad) + padded_row) * (width + 2 * pad) + pad
        source = (tl.cast(group, tl.int64) * height + source_of(row, height, PAD_MODE)) * width
        first, n = whole_groups(at, at + width, VECTOR)
        source += first * VECTOR - at
        n = tl.where(exists(row, height, PAD_MODE), n, 0)
        for number in range(0, n, BLOCK_GROUPS):
            i = number + tl.arange(0, BLOCK_GROUPS)
            place = (first + i)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
            g, value = read(dy + place, (i < n)[:, None]), read_shifted(x, source, i, i < n)
            sum0, sum1 = _add(sum0, sum1, g, value, norm, ACTIVATION, 1)
    return sum0, sum1


@triton.jit
def sums_of(
    dy, x, dy_planes, x_planes, begin, units, planes, image, size, norm, ACTIVATION: tl.constexpr,
    PAD_MODE: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr, BLOCK_GROUPS: tl.constexpr, VECTOR: tl.constexpr,
    LARGE: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Sums [1, planes] of a share of so many units."""
    end = end_of(begin, units, planes, image, PLACES, BLOCK)
    if PLACES == "flat":
        sum0, sum1 = _sums_flat(dy, x, begin, end, planes, size, norm, ACTIVATION, BLOCK, FOLD)
    else:
        if PLACES == "wide":
            wide0, wide1 = _sums_of_rows(
                dy, x, planes.group, begin, end, size, norm, ACTIVATION, PAD_MODE, BLOCK_GROUPS
            )  # fmt: skip
        sum0, sum1 = _sums_of_pixels(
            dy_planes, x_planes, begin, end, image, planes, size, norm, ACTIVATION, PAD_MODE, PLACES, BLOCK,
            VECTOR, LARGE, FOLD if PLACES == "rows" else 1,
        )  # fmt: skip
        if PLACES == "wide":
            sum0, sum1 = sum0 + tl.sum(wide0), sum1 + tl.sum(wide1)
    return sum0, sum1
