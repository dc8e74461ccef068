"""instance_mean: sums over instances, and values of instances to their pixels.

Reducing adds up the runs of pixels of one instance within a block, by a segmented scan, so that floats are added
atomically only where a run ends.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

PIXELS = 1024  # of one program
CHANNELS = 4  # of one program, at most
PIECE = 4096  # pixels of an instance, on average, that one program adds up in order
MOST_PIECES = 256


@triton.jit
def _add_runs(left, left_begins, right, right_begins):
    """Combine two neighbouring stretches: the sum since the last beginning of a run, and whether there is one."""
    return tl.where(right_begins != 0, right, left + right), left_begins | right_begins


@triton.jit(do_not_specialize=["n"])  # which is another one in every batch
def instance_mean_reduce_kernel(
    x,  # [B, C, H, W]
    rows,  # [B, H, W] int32
    sums,  # [N, C] float32, added to
    n,  # N
    pixels,  # H * W
    channels,  # C
    blocks,  # programs of an image
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    begin = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_PIXELS
    at = tl.arange(0, BLOCK_PIXELS)
    p = begin + at
    channel = common.grid_row() * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    valid = p < pixels
    own = tl.load(rows + image * pixels + p, mask=valid, other=-1)
    before = tl.load(rows + image * pixels + p - 1, mask=valid & (at > 0), other=-1)
    after = tl.load(rows + image * pixels + p + 1, mask=(p + 1 < pixels) & (at + 1 < BLOCK_PIXELS), other=-1)
    inside = valid[:, None] & (channel < channels)[None, :]
    where = x + image * channels * pixels + p[:, None] * pixel_stride + channel.to(tl.int64)[None, :] * channel_stride
    value = tl.load(where, mask=inside, other=0.0).to(tl.float32)
    begins = tl.broadcast_to((own != before).to(tl.int32)[:, None], [BLOCK_PIXELS, BLOCK_CHANNELS])
    value, begins = tl.associative_scan((value, begins), 0, _add_runs)
    # An index that was put together by hand may have rows without a place in the table.
    ends = (own != after) & (own >= 0) & (own < n)
    target = sums + own.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.atomic_add(target, value, mask=inside & ends[:, None], sem="relaxed")


@triton.jit
def instance_mean_reduce_sorted_kernel(
    x,  # [B, C, H, W]
    order,  # [B * H * W] int64 pixels by instance
    starts,  # [N + 1] int64 first of each instance in it
    partial,  # [pieces, N, C] float32 out
    n,  # N
    pixels,  # H * W
    total_pixels,  # B * H * W
    channels,  # C
    pieces,
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    row, piece = tl.program_id(0).to(tl.int64), common.grid_row() % pieces
    channel = common.grid_row() // pieces * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    # Within the batch, also if the counts of an index that was put together by hand are not.
    start = tl.minimum(tl.maximum(tl.load(starts + row), 0), total_pixels - 1)
    stop = tl.minimum(tl.load(starts + row + 1), total_pixels)
    size = (stop - start + pieces - 1) // pieces
    begin = start + piece * size
    end = tl.minimum(begin + size, stop)
    image = tl.load(order + start) // pixels
    total = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    for first in range(begin, end, BLOCK_PIXELS):
        i = first + tl.arange(0, BLOCK_PIXELS)
        p = tl.load(order + i, mask=i < end, other=0) - image * pixels
        inside = (i < end)[:, None] & (channel < channels)[None, :]
        where = (
            x + image * channels * pixels + p[:, None] * pixel_stride + channel.to(tl.int64)[None, :] * channel_stride
        )
        total += tl.load(where, mask=inside, other=0.0).to(tl.float32)
    target = partial + (piece.to(tl.int64) * n + row) * channels + channel
    tl.store(target, tl.sum(total, 0), mask=channel < channels)


@triton.jit
def instance_mean_broadcast_kernel(
    table,  # [N, C] float32
    rows,  # [B, H, W] int32
    counts,  # [N] int64, or None: not divided
    y,  # [B, C, H, W] out
    pixels,  # H * W
    channels,  # C
    blocks,  # programs of an image
    pixel_stride,  # elements from one pixel to the next
    channel_stride,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = common.grid_row() * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    row = tl.load(rows + image * pixels + p, mask=p < pixels, other=0).to(tl.int64)
    inside = (p < pixels)[:, None] & (channel < channels)[None, :]
    value = tl.load(table + row[:, None] * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if counts is not None:
        count = tl.load(counts + row, mask=p < pixels, other=1).to(tl.float32)
        value = tl.div_rn(value, tl.broadcast_to(count[:, None], [BLOCK_PIXELS, BLOCK_CHANNELS]))
    where = y + image * channels * pixels + p[:, None] * pixel_stride + channel.to(tl.int64)[None, :] * channel_stride
    tl.store(where, value.to(y.dtype.element_ty), mask=inside)


@cache
def _sizes(shape: torch.Size, channels_last: bool) -> tuple[int, int, int, int]:
    """Pixels, channels, and the elements from a pixel to the next and from a channel to the next."""
    _, channels, height, width = shape
    pixels = height * width
    return (pixels, channels, channels, 1) if channels_last else (pixels, channels, 1, pixels)


@cache
def _blocks(pixels: int, channels: int) -> tuple[int, int, dict[str, Any]]:
    """Programs for so many pixels, programs for so many channels, and the constants of both."""
    block_pixels, block_channels = common.block_of(pixels, PIXELS), common.block_of(channels, CHANNELS)
    constants = {"BLOCK_PIXELS": block_pixels, "BLOCK_CHANNELS": block_channels, **common.OPTIONS}
    return common.parts(pixels, block_pixels), common.parts(channels, block_channels), constants


def instance_mean_pieces(pixels: int, instances: int) -> int:
    """Pieces of each instance that are added up at once, for so many pixels of the batch."""
    return max(1, min(MOST_PIECES, pixels // (PIECE * instances)))


def instance_mean_reduce(
    x: Tensor,  # [B, C, H, W]
    rows: Tensor,  # [B, H, W]
    offsets: Tensor,  # [B + 1]
    sums: Tensor,  # [N, C]
) -> None:
    pixels, channels, *strides = _sizes(x.shape, common.is_channels_last(x))
    blocks, groups, constants = _blocks(pixels, channels)
    instance_mean_reduce_kernel[common.grid_of(x.shape[0] * blocks, groups)](
        x, rows, sums, sums.shape[0], pixels, channels, blocks, *strides, **constants
    )


def instance_mean_reduce_sorted(
    x: Tensor,  # [B, C, H, W]
    order: Tensor,  # [B * H * W]
    starts: Tensor,  # [N + 1]
    partial: Tensor,  # [pieces, N, C]
) -> None:
    pixels, channels, *strides = _sizes(x.shape, common.is_channels_last(x))
    pieces, n, _ = partial.shape
    total_pixels = x.shape[0] * pixels
    _, groups, constants = _blocks(total_pixels // (n * pieces), channels)
    instance_mean_reduce_sorted_kernel[common.grid_of(n, pieces * groups)](
        x, order, starts, partial, n, pixels, total_pixels, channels, pieces, *strides, **constants
    )


def instance_mean_broadcast(
    table: Tensor,  # [N, C]
    rows: Tensor,  # [B, H, W]
    counts: Tensor | None,  # [N]
    y: Tensor,  # [B, C, H, W]
) -> None:
    pixels, channels, *strides = _sizes(y.shape, common.is_channels_last(y))
    blocks, groups, constants = _blocks(pixels, channels)
    instance_mean_broadcast_kernel[common.grid_of(y.shape[0] * blocks, groups)](
        table, rows, counts, y, pixels, channels, blocks, *strides, **constants
    )
