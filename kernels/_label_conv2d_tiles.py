"""Tiles of label_conv2d's result, and which classes they see."""

from __future__ import annotations

import triton
import triton.language as tl

SOMEWHERE = tl.constexpr(1)  # of the pixels that a tile sees
EVERYWHERE = tl.constexpr(2)


@triton.jit
def tile_of(number, down, across, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Image, first row and first column of a tile."""
    top = number // across % down * TILE_HEIGHT
    return (number // (down * across)).to(tl.int64), top, number % across * TILE_WIDTH


@triton.jit
def source_of(at, size, PAD_MODE: tl.constexpr):
    """The row of the planes that row `at` of the padded planes, counted from the first row inside, is a copy of."""
    if PAD_MODE == "reflect":
        return size - 1 - tl.abs(size - 1 - tl.abs(at))
    else:
        return tl.minimum(tl.maximum(at, 0), size - 1)


@triton.jit
def seen(first, last, size, codes_size, span, step, before, PAD_MODE: tl.constexpr):
    """Rows of codes that tell rows `first` to `last` of the padded planes; and whether none of those is zeros."""
    low = tl.minimum(tl.maximum(first, 0), size - 1)
    high = tl.minimum(tl.maximum(last, 0), size - 1)
    known = first <= last
    if PAD_MODE == "reflect":
        low = tl.maximum(tl.minimum(low, 2 * (size - 1) - last), 0)
        high = tl.minimum(tl.maximum(high, -first), size - 1)
    elif PAD_MODE == "zero":
        known = (first >= 0) & (last < size)
    low = tl.minimum(tl.maximum(low * step - before, 0), codes_size - 1)
    return low, tl.minimum(tl.maximum(high * step - before + span - 1, 0), codes_size - 1), known


@triton.jit
def extremes(codes, top, bottom, left, right, width, BLOCK: tl.constexpr):
    """The smallest and the largest code in rows top to bottom and columns left to right."""
    low = tl.full([BLOCK, BLOCK], 2**31 - 1, tl.int32)
    high = tl.full([BLOCK, BLOCK], -1, tl.int32)
    lane = tl.arange(0, BLOCK)
    for y in range(top, bottom + 1, BLOCK):
        row = tl.minimum(y + lane, bottom).to(tl.int64)[:, None]
        for x in range(left, right + 1, BLOCK):
            code = tl.load(codes + row * width + tl.minimum(x + lane, right)[None, :])
            low, high = tl.minimum(low, code), tl.maximum(high, code)
    return tl.min(low), tl.max(high)


@triton.jit
def label_conv2d_present_kernel(
    codes,  # [B, H, W] int32
    present,  # int8 out, zeros: for each tile and row of the table SOMEWHERE or EVERYWHERE, in the order of the strides
    height,  # H
    width,  # W
    plane_height,  # of the planes, pooled or not
    plane_width,
    out_height,  # H'
    out_width,  # W'
    n_labels,  # n
    padding,
    span,  # pixels of codes that a pixel of the planes averages on each side
    step,  # pixels of codes from one of their spans to the next
    before,  # by which a span begins earlier
    down,  # tiles of an image
    across,
    chunks,  # shares of the tiles, which they join in turn
    chunk_tiles,
    tile_stride,
    row_stride,
    SIDE: tl.constexpr,  # k
    STRIDE: tl.constexpr,
    PAD_MODE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,  # side of what is looked at together
):
    number = tl.program_id(0)
    image, top, left = tile_of(number, down, across, TILE, TILE)
    codes += image * height * width
    present += ((number % chunks).to(tl.int64) * chunk_tiles + number // chunks) * tile_stride
    first, last = top * STRIDE - padding, (tl.minimum(top + TILE, out_height) - 1) * STRIDE - padding + SIDE - 1
    top, bottom, known = seen(first, last, plane_height, height, span, step, before, PAD_MODE)
    first, last = left * STRIDE - padding, (tl.minimum(left + TILE, out_width) - 1) * STRIDE - padding + SIDE - 1
    left, right, known_across = seen(first, last, plane_width, width, span, step, before, PAD_MODE)
    low, high = extremes(codes, top, bottom, left, right, width, BLOCK)
    flag = tl.where(known & known_across & (low == high), EVERYWHERE, SOMEWHERE).to(tl.int8)
    if high > n_labels:
        tl.store(present + tl.cast(n_labels, tl.int64) * row_stride, flag)
    lane = tl.arange(0, BLOCK)
    for y in range(top, bottom + 1, BLOCK):
        row = tl.minimum(y + lane, bottom).to(tl.int64)[:, None]
        for x in range(left, right + 1, BLOCK):
            label = tl.load(codes + row * width + tl.minimum(x + lane, right)[None, :]) % (n_labels + 1)
            tl.store(present + label.to(tl.int64) * row_stride, flag, mask=label < n_labels)
