"""Backward kernel of label_conv2d: the gradient of the table."""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels._label_conv2d_matrices import add_product, next_flag, tap_offset, write_plane
from hdgan.kernels._label_conv2d_tiles import EVERYWHERE, tile_of


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
    place = (pixel // TILE * WINDOW + pixel % TILE)[None, :] * STRIDE + tap_offset(tap, SIDE, WINDOW)
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
            key = next_flag(flags, found)
            found = key // 4
            image, top, left = tile_of((block + found) * chunks + chunk, down, across, TILE, TILE)
            row, column = top + pixel[:, None] // TILE, left + pixel[:, None] % TILE
            at = dy + image * channels * out_height * out_width
            at += (row.to(tl.int64) * out_width + column) * pixel_stride + channel.to(tl.int64) * channel_stride
            inside = (row < out_height) & (column < out_width) & valid
            gradient = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            if key % 4 == EVERYWHERE:
                everywhere += gradient
            else:
                slot = BLOCK_WINDOW - slot
                write_plane(
                    codes + image * height * width, pool_y, pool_x, window + slot, plane, top * STRIDE - padding,
                    left * STRIDE - padding, height, width, plane_height, plane_width, n_labels, padding, span, step,
                    before, PAD_MODE, WINDOW, BLOCK_WINDOW,
                )  # fmt: skip
                values = tl.load(window + (slot + place))
                # Planes that are not pooled are zeros and ones; TF32 holds all numbers of 16 bits.
                pooled, wide = pool_y is not None, dy.dtype.element_ty == tl.float32
                somewhere = add_product(somewhere, values, gradient, pooled, wide)
        total += somewhere + tl.sum(everywhere, 0, keep_dims=True)
    at = dtable + ((chunk.to(tl.int64) * SIDE * SIDE + tap) * n_rows + plane) * channels + channel
    tl.store(at, total, mask=(tap < SIDE * SIDE) & valid)
