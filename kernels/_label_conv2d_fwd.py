"""Forward kernels of label_conv2d: of planes as they are, and of pooled planes."""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels import common
from hdgan.kernels._label_conv2d_matrices import add_product, next_flag, tap_offset, write_plane
from hdgan.kernels._label_conv2d_tiles import EVERYWHERE, extremes, seen, source_of, tile_of


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
    channel = common.grid_row() * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
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
    image, top, left = tile_of(tl.program_id(0) // groups, down, across, TILE_HEIGHT, TILE_WIDTH)
    codes += image * height * width
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row, column = top + pixel // TILE_WIDTH, left + pixel % TILE_WIDTH
    channel = tl.program_id(0) % groups * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    valid = channel < channels
    inside = ((row < out_height) & (column < out_width))[:, None] & valid
    y += image * channels * out_height * out_width + channel.to(tl.int64) * channel_stride
    y += (row.to(tl.int64) * out_width + column)[:, None] * pixel_stride

    first, last = top * STRIDE - padding, (tl.minimum(top + TILE_HEIGHT, out_height) - 1) * STRIDE - padding + SIDE - 1
    above, below, known = seen(first, last, height, height, 1, 1, 0, PAD_MODE)
    first, last = left * STRIDE - padding, (tl.minimum(left + TILE_WIDTH, out_width) - 1) * STRIDE - padding + SIDE - 1
    before, after, known_across = seen(first, last, width, width, 1, 1, 0, PAD_MODE)
    code, largest = extremes(codes, above, below, before, after, width, BLOCK)
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
            source_row = source_of(padded_row, height, PAD_MODE)
            for j in range(SIDE):
                padded_column = column * STRIDE - padding + j
                source_column = source_of(padded_column, width, PAD_MODE)
                tap_code = tl.load(codes + source_row.to(tl.int64) * width + source_column)
                mask = valid
                if PAD_MODE == "zero":
                    mask = valid & ((padded_row == source_row) & (padded_column == source_column))[:, None]
                at = tap_code.to(tl.int64)[:, None] * channels + channel
                total += tl.load(rows + at, mask=mask, other=0.0)
                rows += tl.cast(n_codes, tl.int64) * channels
        tl.store(y, total.to(y.dtype.element_ty), mask=inside)


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
        image, top, left = tile_of(number, down, across, TILE, TILE)
        codes_of_image = codes + image * height * width
        total = tl.zeros([TILE * TILE, BLOCK_CHANNELS], tl.float32)
        for block in range(0, n_rows, BLOCK_FLAGS):
            flags_at = present + tl.cast(number, tl.int64) * n_rows + block + lane
            flags = tl.load(flags_at, mask=block + lane < n_rows, other=0).to(tl.int32)
            found = -1
            for _ in range(tl.sum((flags != 0).to(tl.int32))):
                key = next_flag(flags, found)
                found = key // 4
                plane = block + found
                if key % 4 == EVERYWHERE:
                    total += tl.load(sums + tl.cast(plane, tl.int64) * channels + channel, mask=valid, other=0.0)
                else:
                    slot = BLOCK_WINDOW - slot
                    write_plane(
                        codes_of_image, pool_y, pool_x, window + slot, plane, top * STRIDE - padding,
                        left * STRIDE - padding, height, width, plane_height, plane_width, n_labels, padding,
                        span, step, before, PAD_MODE, WINDOW, BLOCK_WINDOW,
                    )  # fmt: skip
                    for first in range(0, SIDE * SIDE, BLOCK_TAPS):
                        tap = first + tl.arange(0, BLOCK_TAPS)
                        values = tl.load(window + (slot + place + tap_offset(tap, SIDE, WINDOW)[None, :]))
                        at = table + (tap.to(tl.int64)[:, None] * n_rows + plane) * channels + channel
                        rows = tl.load(at, mask=(tap < SIDE * SIDE)[:, None] & valid, other=0.0)
                        total = add_product(total, values, rows, True, True)
        row, column = top + pixel // TILE, left + pixel % TILE
        at = y + image * channels * out_height * out_width + channel.to(tl.int64) * channel_stride
        at += (row.to(tl.int64) * out_width + column) * pixel_stride
        tl.store(at, total.to(y.dtype.element_ty), mask=(row < out_height) & (column < out_width) & valid)
