"""label_conv2d: sums of rows of a table; see hdgan/ops/label_conv2d.py.

A program makes a tile of the result. Most tiles see one code and no other: their pixels are one row of the table's sum
over the taps. The others are made in one of two ways.

- Where the planes are convolved as they are, every tap of a pixel adds a row of the table. What this costs does not
  depend on the number of classes. A second look at the codes could spare the pixels of a tile that see one code their
  additions, but it would take as many instructions as it saves, so tiles are small instead.
- Where the planes are pooled first, and in the gradient of the table, the classes that a tile sees are taken one after
  the other; there are few. The values of one class under all taps of all pixels are a matrix. Its product with the
  table's rows of that class adds to the result, and its product with the gradient of the tile's pixels adds to the
  gradient of those rows. Tensor cores multiply in TF32: a number that TF32 does not hold is split in two, of whose
  products only that of both lower parts is left out, and sums are in float32.

A program owns one row of the gradient, for all taps, in one share of the tiles; the shares are added in a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

PIXELS = 32  # of a tile whose rows are added
TILE = 8  # pixels on each side of a tile whose matrices are multiplied
CHANNELS = 32  # of a program at most
TAPS = 64  # of a matrix at most
FLAGS = 32  # tiles whose gradients are added up together
PROGRAMS = 16  # for each multiprocessor
SOMEWHERE = tl.constexpr(1)  # of the pixels that a tile sees
EVERYWHERE = tl.constexpr(2)


@triton.jit
def _tile(number, down, across, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Image, first row and first column of a tile."""
    top = number // across % down * TILE_HEIGHT
    return (number // (down * across)).to(tl.int64), top, number % across * TILE_WIDTH


@triton.jit
def _source(at, size, PAD_MODE: tl.constexpr):
    """The row of the planes that row `at` of the padded planes, counted from the first row inside, is a copy of."""
    if PAD_MODE == "reflect":
        return size - 1 - tl.abs(size - 1 - tl.abs(at))
    else:
        return tl.minimum(tl.maximum(at, 0), size - 1)


@triton.jit
def _seen(first, last, size, codes_size, span, step, before, PAD_MODE: tl.constexpr):
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
def _extremes(codes, top, bottom, left, right, width, BLOCK: tl.constexpr):
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
def label_conv2d_rows_kernel(
    table,  # [k * k, n (+ 1), C] float32
    rows,  # [k * k + 1, codes, C] float32 out: for each code its row of the table, at last their sum over the taps
    n_rows,  # n (+ 1)
    n_labels,  # n
    n_codes,
    channels,  # C
    TAPS: tl.constexpr,  # k * k
    BLOCK_TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    code = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    label = code % (n_labels + 1)
    total = tl.zeros([BLOCK_TAPS, BLOCK_CHANNELS], tl.float32)
    for first in range(0, TAPS, BLOCK_TAPS):
        tap = first + tl.arange(0, BLOCK_TAPS)
        mask = (tap < TAPS)[:, None] & (channel < channels)[None, :]
        at = table + tap.to(tl.int64)[:, None] * n_rows * channels + channel[None, :]
        value = tl.zeros([BLOCK_TAPS, BLOCK_CHANNELS], tl.float32)
        if label < n_labels:
            value += tl.load(at + tl.cast(label, tl.int64) * channels, mask=mask, other=0.0)
        if code > n_labels:
            value += tl.load(at + tl.cast(n_labels, tl.int64) * channels, mask=mask, other=0.0)
        at = rows + (tap.to(tl.int64)[:, None] * n_codes + code) * channels + channel[None, :]
        tl.store(at, value, mask=mask)
        total += value
    at = rows + (tl.cast(TAPS, tl.int64) * n_codes + code) * channels + channel
    tl.store(at, tl.sum(total, 0), mask=channel < channels)


@triton.jit
def label_conv2d_fwd_kernel(
    codes,  # [B, H, W] int32
    rows,  # [k * k + 1, codes, C] float32, of label_conv2d_rows_kernel
    y,  # [B, C, H', W']
    height,  # H
    width,  # W
    out_height,  # H'
    out_width,  # W'
    n_codes,
    channels,  # C
    padding,
    down,  # tiles of an image
    across,
    groups,  # of BLOCK_CHANNELS channels
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    SIDE: tl.constexpr,  # k
    STRIDE: tl.constexpr,
    PAD_MODE: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,  # side of what is looked at together
    BLOCK_CHANNELS: tl.constexpr,
):
    image, top, left = _tile(tl.program_id(0) // groups, down, across, TILE_HEIGHT, TILE_WIDTH)
    codes += image * height * width
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row, column = top + pixel // TILE_WIDTH, left + pixel % TILE_WIDTH
    channel = tl.program_id(0) % groups * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    valid = channel < channels
    inside = ((row < out_height) & (column < out_width))[:, None] & valid
    y += image * channels * out_height * out_width + channel.to(tl.int64) * channel_stride
    y += (row.to(tl.int64) * out_width + column)[:, None] * pixel_stride

    first, last = top * STRIDE - padding, (tl.minimum(top + TILE_HEIGHT, out_height) - 1) * STRIDE - padding + SIDE - 1
    above, below, known = _seen(first, last, height, height, 1, 1, 0, PAD_MODE)
    first, last = left * STRIDE - padding, (tl.minimum(left + TILE_WIDTH, out_width) - 1) * STRIDE - padding + SIDE - 1
    before, after, known_across = _seen(first, last, width, width, 1, 1, 0, PAD_MODE)
    code, largest = _extremes(codes, above, below, before, after, width, BLOCK)
    if known & known_across & (code == largest):
        at = rows + (tl.cast(SIDE * SIDE, tl.int64) * n_codes + code) * channels + channel
        total = tl.broadcast_to(tl.load(at, mask=valid, other=0.0), [TILE_HEIGHT * TILE_WIDTH, BLOCK_CHANNELS])
        tl.store(y, total.to(y.dtype.element_ty), mask=inside)
    else:
        total = tl.zeros([TILE_HEIGHT * TILE_WIDTH, BLOCK_CHANNELS], tl.float32)
        # Pixels outside of the result do as its last ones.
        row, column = tl.minimum(row, out_height - 1), tl.minimum(column, out_width - 1)
        for i in range(SIDE):
            padded_row = row * STRIDE - padding + i
            source_row = _source(padded_row, height, PAD_MODE)
            for j in range(SIDE):
                padded_column = column * STRIDE - padding + j
                source_column = _source(padded_column, width, PAD_MODE)
                tap_code = tl.load(codes + source_row.to(tl.int64) * width + source_column)
                mask = valid
                if PAD_MODE == "zero":
                    mask = valid & ((padded_row == source_row) & (padded_column == source_column))[:, None]
                at = tap_code.to(tl.int64)[:, None] * channels + channel
                total += tl.load(rows + at, mask=mask, other=0.0)
                rows += tl.cast(n_codes, tl.int64) * channels
        tl.store(y, total.to(y.dtype.element_ty), mask=inside)


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
    image, top, left = _tile(number, down, across, TILE, TILE)
    codes += image * height * width
    present += ((number % chunks).to(tl.int64) * chunk_tiles + number // chunks) * tile_stride
    first, last = top * STRIDE - padding, (tl.minimum(top + TILE, out_height) - 1) * STRIDE - padding + SIDE - 1
    top, bottom, known = _seen(first, last, plane_height, height, span, step, before, PAD_MODE)
    first, last = left * STRIDE - padding, (tl.minimum(left + TILE, out_width) - 1) * STRIDE - padding + SIDE - 1
    left, right, known_across = _seen(first, last, plane_width, width, span, step, before, PAD_MODE)
    low, high = _extremes(codes, top, bottom, left, right, width, BLOCK)
    flag = tl.where(known & known_across & (low == high), EVERYWHERE, SOMEWHERE).to(tl.int8)
    if high > n_labels:
        tl.store(present + tl.cast(n_labels, tl.int64) * row_stride, flag)
    lane = tl.arange(0, BLOCK)
    for y in range(top, bottom + 1, BLOCK):
        row = tl.minimum(y + lane, bottom).to(tl.int64)[:, None]
        for x in range(left, right + 1, BLOCK):
            label = tl.load(codes + row * width + tl.minimum(x + lane, right)[None, :]) % (n_labels + 1)
            tl.store(present + label.to(tl.int64) * row_stride, flag, mask=label < n_labels)


@triton.jit
def _next(flags, after):
    """The first of a block's flags behind number `after` that is set: 4 times its number, plus its value."""
    number = tl.arange(0, flags.shape[0])
    return tl.min(tl.where((flags != 0) & (number > after), 4 * number + flags, 2**30))


@triton.jit
def _write_plane(
    codes, pool_y, pool_x, window, plane, top, left, height, width, plane_height, plane_width, n_labels, padding,
    span, step, before, PAD_MODE: tl.constexpr, WINDOW: tl.constexpr, BLOCK_WINDOW: tl.constexpr,
):  # fmt: skip
    """Write one of the padded planes, in WINDOW rows and columns from row `top` and column `left` on, to `window`.

    Triton has no shared memory that a program can index; what it has just written is in the first cache. A program
    writes to two windows in turn, so that no thread still reads what another overwrites.
    """
    at = tl.arange(0, BLOCK_WINDOW)
    at_row = tl.minimum(top + at // WINDOW, plane_height - 1 + padding)
    at_column = tl.minimum(left + at % WINDOW, plane_width - 1 + padding)
    row, column = _source(at_row, plane_height, PAD_MODE), _source(at_column, plane_width, PAD_MODE)
    counts = at >= 0
    if PAD_MODE == "zero":
        counts = (at_row == row) & (at_column == column)
    value = tl.zeros([BLOCK_WINDOW], tl.float32)
    for s in range(span):
        y = row * step - before + s
        counts_y = counts & (y >= 0) & (y < height)
        weight_y = counts_y.to(tl.float32)
        if pool_y is not None:
            weight_y = tl.load(pool_y + row * span + s, mask=counts_y, other=0.0)
        for t in range(span):
            x = column * step - before + t
            counts_x = counts_y & (x >= 0) & (x < width)
            weight = weight_y
            if pool_x is not None:
                weight = weight_y * tl.load(pool_x + column * span + t, mask=counts_x, other=0.0)
            code = tl.load(codes + y.to(tl.int64) * width + x, mask=counts_x, other=0)
            shown = (code == plane) | (code == plane + n_labels + 1)
            if plane == n_labels:
                shown = code > n_labels
            value += tl.where(shown, weight, 0.0)
    tl.store(window + at, value)
    tl.debug_barrier()


@triton.jit
def _tap_offset(tap, SIDE: tl.constexpr, WINDOW: tl.constexpr):
    """Where a tap is in a window, from the pixel's own place on; the last one for numbers beyond it."""
    tap = tl.minimum(tap, SIDE * SIDE - 1)
    return tap // SIDE * WINDOW + tap % SIDE


@triton.jit
def _halves(x):
    """x as a number that TF32 holds, and what is left of it, of which TF32 holds 11 bits."""
    high = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _add_product(total, a, b, SPLIT_A: tl.constexpr, SPLIT_B: tl.constexpr):
    """total + a @ b. What is split need not be exact in TF32."""
    if SPLIT_A:
        a, low = _halves(a)
        total = tl.dot(low, b, total, input_precision="tf32")
    if SPLIT_B:
        b, low = _halves(b)
        total = tl.dot(a, low, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision="tf32")


@triton.jit
def label_conv2d_fwd_pooled_kernel(
    codes,  # [B, H, W] int32
    table,  # [k * k, n (+ 1), C] float32
    sums,  # [n (+ 1), C] float32, of the table over the taps
    present,  # [tiles, n (+ 1)] int8
    windows,  # [programs, 2, BLOCK_WINDOW] float32 scratch
    pool_y,  # [H / 2^levels, span] float32
    pool_x,  # [W / 2^levels, span] float32
    y,  # [B, C, H', W']
    height,  # H
    width,  # W
    plane_height,  # H / 2^levels
    plane_width,  # W / 2^levels
    out_height,  # H'
    out_width,  # W'
    n_rows,  # n (+ 1)
    n_labels,  # n
    channels,  # C
    padding,
    span,
    step,  # 2^levels
    before,  # by which a span begins earlier
    down,  # tiles of an image
    across,
    tiles,  # of all images
    groups,  # of BLOCK_CHANNELS channels
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    SIDE: tl.constexpr,  # k
    STRIDE: tl.constexpr,
    PAD_MODE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_WINDOW: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_FLAGS: tl.constexpr,
):
    program = tl.program_id(0)
    window = windows + program.to(tl.int64) * (2 * BLOCK_WINDOW)
    channel = program % groups * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    valid = channel < channels
    pixel = tl.arange(0, TILE * TILE)[:, None]
    place = (pixel // TILE * WINDOW + pixel % TILE) * STRIDE
    lane = tl.arange(0, BLOCK_FLAGS)
    slot = 0
    for number in range(program // groups, tiles, tl.num_programs(0) // groups):
        image, top, left = _tile(number, down, across, TILE, TILE)
        codes_of_image = codes + image * height * width
        total = tl.zeros([TILE * TILE, BLOCK_CHANNELS], tl.float32)
        for block in range(0, n_rows, BLOCK_FLAGS):
            flags_at = present + tl.cast(number, tl.int64) * n_rows + block + lane
            flags = tl.load(flags_at, mask=block + lane < n_rows, other=0).to(tl.int32)
            found = -1
            for _ in range(tl.sum((flags != 0).to(tl.int32))):
                key = _next(flags, found)
                found = key // 4
                plane = block + found
                if key % 4 == EVERYWHERE:
                    total += tl.load(sums + tl.cast(plane, tl.int64) * channels + channel, mask=valid, other=0.0)
                else:
                    slot = BLOCK_WINDOW - slot
                    _write_plane(
                        codes_of_image, pool_y, pool_x, window + slot, plane, top * STRIDE - padding,
                        left * STRIDE - padding, height, width, plane_height, plane_width, n_labels, padding,
                        span, step, before, PAD_MODE, WINDOW, BLOCK_WINDOW,
                    )  # fmt: skip
                    for first in range(0, SIDE * SIDE, BLOCK_TAPS):
                        tap = first + tl.arange(0, BLOCK_TAPS)
                        values = tl.load(window + (slot + place + _tap_offset(tap, SIDE, WINDOW)[None, :]))
                        at = table + (tap.to(tl.int64)[:, None] * n_rows + plane) * channels + channel
                        rows = tl.load(at, mask=(tap < SIDE * SIDE)[:, None] & valid, other=0.0)
                        total = _add_product(total, values, rows, True, True)
        row, column = top + pixel // TILE, left + pixel % TILE
        at = y + image * channels * out_height * out_width + channel.to(tl.int64) * channel_stride
        at += (row.to(tl.int64) * out_width + column) * pixel_stride
        tl.store(at, total.to(y.dtype.element_ty), mask=(row < out_height) & (column < out_width) & valid)


@triton.jit
def label_conv2d_bwd_kernel(
    codes,  # [B, H, W] int32
    dtable,  # [chunks, k * k, n (+ 1), C] float32 out, to be added up
    dy,  # [B, C, H', W']
    present,  # [n (+ 1), chunks, chunk_tiles] int8
    windows,  # [programs, 2, BLOCK_WINDOW] float32 scratch
    pool_y,  # [H / 2^levels, span] float32, or None
    pool_x,  # [W / 2^levels, span] float32, or None
    height,  # H
    width,  # W
    plane_height,  # of the planes, pooled or not
    plane_width,
    out_height,  # H'
    out_width,  # W'
    n_rows,  # n (+ 1)
    n_labels,  # n
    channels,  # C
    padding,
    span,
    step,  # 2^levels
    before,  # by which a span begins earlier
    down,  # tiles of an image
    across,
    chunks,
    chunk_tiles,
    groups,  # of BLOCK_CHANNELS channels
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    SIDE: tl.constexpr,  # k
    STRIDE: tl.constexpr,
    PAD_MODE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_WINDOW: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_FLAGS: tl.constexpr,
):
    program = tl.program_id(0)
    plane, chunk = program % n_rows, program // n_rows % chunks
    part = program // n_rows // chunks
    window = windows + program.to(tl.int64) * (2 * BLOCK_WINDOW)
    present += (tl.cast(plane, tl.int64) * chunks + chunk) * chunk_tiles
    channel = part % groups * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    valid = channel < channels
    tap = part // groups * BLOCK_TAPS + tl.arange(0, BLOCK_TAPS)[:, None]
    pixel = tl.arange(0, TILE * TILE)
    place = (pixel // TILE * WINDOW + pixel % TILE)[None, :] * STRIDE + _tap_offset(tap, SIDE, WINDOW)
    lane = tl.arange(0, BLOCK_FLAGS)
    total = tl.zeros([BLOCK_TAPS, BLOCK_CHANNELS], tl.float32)
    slot = 0
    for block in range(0, chunk_tiles, BLOCK_FLAGS):
        flags = tl.load(present + block + lane, mask=block + lane < chunk_tiles, other=0).to(tl.int32)
        # Sums of a block of tiles are apart, so that a sum of many pixels keeps its accuracy.
        somewhere = tl.zeros([BLOCK_TAPS, BLOCK_CHANNELS], tl.float32)
        everywhere = tl.zeros([TILE * TILE, BLOCK_CHANNELS], tl.float32)
        found = -1
        for _ in range(tl.sum((flags != 0).to(tl.int32))):
            key = _next(flags, found)
            found = key // 4
            image, top, left = _tile((block + found) * chunks + chunk, down, across, TILE, TILE)
            row, column = top + pixel[:, None] // TILE, left + pixel[:, None] % TILE
            at = dy + image * channels * out_height * out_width
            at += (row.to(tl.int64) * out_width + column) * pixel_stride + channel.to(tl.int64) * channel_stride
            inside = (row < out_height) & (column < out_width) & valid
            gradient = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            if key % 4 == EVERYWHERE:
                everywhere += gradient
            else:
                slot = BLOCK_WINDOW - slot
                _write_plane(
                    codes + image * height * width, pool_y, pool_x, window + slot, plane, top * STRIDE - padding,
                    left * STRIDE - padding, height, width, plane_height, plane_width, n_labels, padding, span, step,
                    before, PAD_MODE, WINDOW, BLOCK_WINDOW,
                )  # fmt: skip
                values = tl.load(window + (slot + place))
                # Planes that are not pooled are zeros and ones; TF32 holds all numbers of 16 bits.
                pooled, wide = pool_y is not None, dy.dtype.element_ty == tl.float32
                somewhere = _add_product(somewhere, values, gradient, pooled, wide)
        total += somewhere + tl.sum(everywhere, 0, keep_dims=True)
    at = dtable + ((chunk.to(tl.int64) * SIDE * SIDE + tap) * n_rows + plane) * channels + channel
    tl.store(at, total, mask=(tap < SIDE * SIDE) & valid)


@dataclass(frozen=True)
class _Tiling:
    """How a convolution is shared out among programs whose tiles have TILE pixels on each side."""

    tiles: int  # of all images
    chunks: int  # shares of the tiles in the gradient
    programs: tuple[int, int]  # forward and backward
    tile: dict[str, Any]  # what kernels must know of a tile
    matrix: dict[str, Any]  # and what else of its matrices
    flags: int  # bytes: a row of the table in a tile

    @property
    def chunk_tiles(self) -> int:
        return common.parts(self.tiles, self.chunks)

    def split(self, scratch: Tensor, sums: int, programs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scratch as room for sums, for the window of each program, and for flags, which are cleared."""
        windows = sums + programs * 2 * self.matrix["BLOCK_WINDOW"]
        flags = scratch[windows:].view(torch.int8)[: self.flags]
        return scratch[:sums], scratch[sums:windows], flags.zero_()

    def scratch(self, sums: int, programs: int) -> int:
        """Elements of float32 that `split` takes."""
        return sums + programs * 2 * self.matrix["BLOCK_WINDOW"] + common.parts(self.flags, 4)


def _options(side: int, stride: int, padding: int, pad_mode: str) -> dict[str, Any]:
    """What all kernels are compiled for. Without padding the mode does not matter."""
    return {"SIDE": side, "STRIDE": stride, "PAD_MODE": pad_mode if padding else "replicate"}


def _side(taps: int) -> int:
    return int(taps**0.5 + 0.5)


def _strides(y: torch.Size, channels_last: bool) -> dict[str, int]:
    """Elements from one pixel to the next, and from one channel to the next."""
    if channels_last:
        return {"pixel_stride": y[1], "channel_stride": 1}
    return {"pixel_stride": 1, "channel_stride": y[2] * y[3]}


def _plan(
    codes: Tensor, table: Tensor, y: Tensor, pool_y: Tensor | None, pool_x: Tensor | None,
    n_labels: int, stride: int, padding: int, pad_mode: str,
) -> _Tiling:  # fmt: skip
    pools = None if pool_y is None or pool_x is None else (*pool_y.shape, pool_x.shape[0])
    options = n_labels, stride, padding, pad_mode
    return _tiling(codes.shape, table.shape, y.shape, common.is_channels_last(y), pools, common.processors(y), *options)


@cache
def _tiling(
    codes: torch.Size, table: torch.Size, y: torch.Size, channels_last: bool, pools: tuple[int, int, int] | None,
    processors: int, n_labels: int, stride: int, padding: int, pad_mode: str,
) -> _Tiling:  # fmt: skip
    """The plan for tensors of these shapes; `pools` are the height of the pooled planes, their span and their width."""
    (batch, channels, out_height, out_width), (_, height, width) = y, codes
    side, (taps, rows, _) = _side(table[0]), table
    down, across = common.parts(out_height, TILE), common.parts(out_width, TILE)
    tiles = batch * down * across
    plane_height, span, plane_width = pools or (height, 1, width)
    step, before = ((span + 1) // 2, (span - 1) // 2) if span % 2 else (span, 0)
    window = (TILE - 1) * stride + side
    tile = {
        "height": height, "width": width,
        "plane_height": plane_height, "plane_width": plane_width,
        "out_height": out_height, "out_width": out_width, "n_labels": n_labels, "padding": padding,
        "span": span, "step": step, "before": before, "down": down, "across": across,
        "TILE": TILE, **_options(side, stride, padding, pad_mode),
    }  # fmt: skip
    blocks = {
        "WINDOW": window,
        "BLOCK_WINDOW": triton.next_power_of_2(window * window),
        # Tensor cores multiply no fewer rows and columns than 16.
        "BLOCK_TAPS": max(16, common.block_of(taps, TAPS)),
        "BLOCK_CHANNELS": max(16, common.block_of(channels, CHANNELS)),
    }
    groups = common.parts(channels, blocks["BLOCK_CHANNELS"])
    parts = groups * common.parts(taps, blocks["BLOCK_TAPS"])
    workers = PROGRAMS * processors
    chunks = max(1, min(tiles, workers // (rows * parts)))
    matrix = {"n_rows": rows, "channels": channels, "groups": groups, **_strides(y, channels_last), **blocks}
    flags = rows * chunks * common.parts(tiles, chunks)
    return _Tiling(tiles, chunks, (min(tiles, workers) * groups, rows * chunks * parts), tile, matrix, flags)


def _mark_present(
    tiling: _Tiling, codes: Tensor, flags: Tensor, chunks: int, tile_stride: int, row_stride: int
) -> None:
    block = common.block_of((tiling.matrix["WINDOW"] - 1) * tiling.tile["step"] + tiling.tile["span"], 32)
    label_conv2d_present_kernel[(tiling.tiles,)](
        codes, flags, chunks=chunks, chunk_tiles=common.parts(tiling.tiles, chunks), tile_stride=tile_stride,
        row_stride=row_stride, BLOCK=block, **tiling.tile, num_warps=max(1, block * block // 256), **common.OPTIONS,
    )  # fmt: skip


def _codes(table: Tensor, n_labels: int) -> int:
    """How many codes there are: with and without boundary if the table has a row for it."""
    return (n_labels + 1) * (1 + table.shape[1] - n_labels)


def label_conv2d_fwd_scratch(
    codes: Tensor,
    table: Tensor,
    y: Tensor,
    pool_y: Tensor | None,
    pool_x: Tensor | None,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> int:
    taps, rows, channels = table.shape
    if pool_y is None:
        return (taps + 1) * _codes(table, n_labels) * channels
    tiling = _plan(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    return tiling.scratch(rows * channels, tiling.programs[0])


def label_conv2d_bwd_scratch(
    codes: Tensor,
    dtable: Tensor,
    dy: Tensor,
    pool_y: Tensor | None,
    pool_x: Tensor | None,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> int:
    tiling = _plan(codes, dtable, dy, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    return tiling.scratch(tiling.chunks * dtable.numel(), tiling.programs[1])


def label_conv2d_fwd(
    codes: Tensor,  # [B, H, W]
    table: Tensor,  # [k * k, n (+ 1), C]
    y: Tensor,  # [B, C, H', W']
    pool_y: Tensor | None,  # [H / 2^levels, span]
    pool_x: Tensor | None,  # [W / 2^levels, span]
    scratch: Tensor,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> None:
    if pool_y is None:
        _add_rows(codes, table, y, scratch, n_labels, stride, padding, pad_mode)
        return
    tiling = _plan(codes, table, y, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    sums, windows, flags = tiling.split(scratch, table[0].numel(), tiling.programs[0])
    torch.sum(table, 0, out=sums.view(table.shape[1:]))
    _mark_present(tiling, codes, flags, 1, table.shape[1], 1)
    label_conv2d_fwd_pooled_kernel[(tiling.programs[0],)](
        codes, table, sums, flags, windows, pool_y, pool_x, y, tiles=tiling.tiles, **tiling.tile, **tiling.matrix,
        BLOCK_FLAGS=common.block_of(table.shape[1], 128), num_warps=8, **common.OPTIONS,
    )  # fmt: skip


def _add_rows(
    codes: Tensor, table: Tensor, y: Tensor, scratch: Tensor, n_labels: int, stride: int, padding: int, pad_mode: str
) -> None:
    """The result where the planes are convolved as they are."""
    (batch, channels, out_height, out_width), (_, height, width) = y.shape, codes.shape
    taps, rows, _ = table.shape
    n_codes = _codes(table, n_labels)
    block_channels = common.block_of(channels, CHANNELS)
    groups = common.parts(channels, block_channels)
    label_conv2d_rows_kernel[(n_codes, groups)](
        table,
        scratch,
        rows,
        n_labels,
        n_codes,
        channels,
        TAPS=taps,
        BLOCK_TAPS=16,
        BLOCK_CHANNELS=block_channels,
        **common.OPTIONS,
    )
    # A row of a tile's pixels has the 32 bytes that memory is written by, in one plane or in several.
    channels_last = common.is_channels_last(y)
    tile_width = 8 if channels_last else 32 // y.element_size()
    tile_height = PIXELS // tile_width * (1 if common.processors(y) > 1 else 4)  # fewer tiles in the interpreter
    down, across = common.parts(out_height, tile_height), common.parts(out_width, tile_width)
    label_conv2d_fwd_kernel[(batch * down * across * groups,)](
        codes, scratch, y, height, width, out_height, out_width, n_codes, channels, padding, down, across, groups,
        **_strides(y.shape, channels_last), **_options(_side(taps), stride, padding, pad_mode),
        TILE_HEIGHT=tile_height, TILE_WIDTH=tile_width, BLOCK=16, BLOCK_CHANNELS=block_channels,
        num_warps=1, **common.OPTIONS,
    )  # fmt: skip


def label_conv2d_bwd(
    codes: Tensor,  # [B, H, W]
    dtable: Tensor,  # [k * k, n (+ 1), C]
    dy: Tensor,  # [B, C, H', W']
    pool_y: Tensor | None,  # [H / 2^levels, span]
    pool_x: Tensor | None,  # [W / 2^levels, span]
    scratch: Tensor,
    n_labels: int,
    stride: int,
    padding: int,
    pad_mode: str,
) -> None:
    tiling = _plan(codes, dtable, dy, pool_y, pool_x, n_labels, stride, padding, pad_mode)
    partial, windows, flags = tiling.split(scratch, tiling.chunks * dtable.numel(), tiling.programs[1])
    _mark_present(tiling, codes, flags, tiling.chunks, 1, tiling.chunks * tiling.chunk_tiles)
    label_conv2d_bwd_kernel[(tiling.programs[1],)](
        codes, partial, dy, flags, windows, pool_y, pool_x, chunks=tiling.chunks, chunk_tiles=tiling.chunk_tiles,
        **tiling.tile, **tiling.matrix, BLOCK_FLAGS=FLAGS, num_warps=8, **common.OPTIONS,
    )  # fmt: skip
    torch.sum(partial.view(tiling.chunks, *dtable.shape), 0, out=dtable)
