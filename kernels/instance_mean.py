"""instance_mean: sums over instances, and values of instances to their pixels.

Reducing adds up the runs of pixels of one instance within a block, by a segmented scan, so that floats are added
atomically only where a run ends.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

PIXELS = 1024  # of one program
CHANNELS = 4  # of one program, at most


@triton.jit
def _add_runs(left, left_begins, right, right_begins):
    """Combine two neighbouring stretches: the sum since the last beginning of a run, and whether there is one."""
    return tl.where(right_begins != 0, right, left + right), left_begins | right_begins


@triton.jit
def instance_mean_reduce_kernel(
    x,  # [B, C, H, W]
    rows,  # [B, H, W] int32
    sums,  # [N, C] float32, added to
    pixels,  # H * W
    channels,  # C
    blocks,  # programs of an image
    pixel,  # elements from a pixel to the next
    plane,  # elements from a channel to the next
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    begin = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    p = begin + at
    channel = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    valid = p < pixels
    own = tl.load(rows + image * pixels + p, mask=valid, other=-1)
    before = tl.load(rows + image * pixels + p - 1, mask=valid & (at > 0), other=-1)
    after = tl.load(rows + image * pixels + p + 1, mask=(p + 1 < pixels) & (at + 1 < BLOCK), other=-1)
    inside = valid[:, None] & (channel < channels)[None, :]
    where = x + image * channels * pixels + p[:, None] * pixel + channel.to(tl.int64)[None, :] * plane
    value = tl.load(where, mask=inside, other=0.0).to(tl.float32)
    begins = tl.broadcast_to((own != before).to(tl.int32)[:, None], [BLOCK, GROUP])
    value, begins = tl.associative_scan((value, begins), 0, _add_runs)
    target = sums + own.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.atomic_add(target, value, mask=inside & (own != after)[:, None], sem="relaxed")


@triton.jit
def instance_mean_reduce_sorted_kernel(
    x,  # [B, C, H, W]
    order,  # [B * H * W] int64 pixels by instance
    starts,  # [N + 1] int64 first of each instance in it
    partial,  # [pieces, N, C] float32 out
    n,  # N
    pixels,  # H * W
    channels,  # C
    pieces,
    pixel,  # elements from a pixel to the next
    plane,  # elements from a channel to the next
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * GROUP + tl.arange(0, GROUP)
    start, stop = tl.load(starts + row), tl.load(starts + row + 1)
    size = (stop - start + pieces - 1) // pieces
    begin = start + piece * size
    end = tl.minimum(begin + size, stop)
    image = tl.load(order + start) // pixels
    total = tl.zeros([BLOCK, GROUP], tl.float32)
    for first in range(begin, end, BLOCK):
        i = first + tl.arange(0, BLOCK)
        p = tl.load(order + i, mask=i < end, other=0) - image * pixels
        inside = (i < end)[:, None] & (channel < channels)[None, :]
        where = x + image * channels * pixels + p[:, None] * pixel + channel.to(tl.int64)[None, :] * plane
        total += tl.load(where, mask=inside, other=0.0).to(tl.float32)
    target = partial + (piece.to(tl.int64) * n + row) * channels + channel
    tl.store(target, tl.sum(total, 0), mask=channel < channels)


@triton.jit
def instance_mean_broadcast_kernel(
    table,  # [N, C] float32
    rows,  # [B, H, W] int32
    counts,  # [N] int64, or anything if DIVIDE is not set
    y,  # [B, C, H, W] out
    pixels,  # H * W
    channels,  # C
    blocks,  # programs of an image
    pixel,  # elements from a pixel to the next
    plane,  # elements from a channel to the next
    DIVIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
):
    image = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    row = tl.load(rows + image * pixels + p, mask=p < pixels, other=0).to(tl.int64)
    inside = (p < pixels)[:, None] & (channel < channels)[None, :]
    value = tl.load(table + row[:, None] * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    if DIVIDE:
        count = tl.load(counts + row, mask=p < pixels, other=1).to(tl.float32)
        value = tl.div_rn(value, tl.broadcast_to(count[:, None], [BLOCK, GROUP]))
    where = y + image * channels * pixels + p[:, None] * pixel + channel.to(tl.int64)[None, :] * plane
    tl.store(where, value.to(y.dtype.element_ty), mask=inside)


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    """Pixels, channels, and the elements from a pixel to the next and from a channel to the next."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    return (pixels, channels, channels, 1) if common.is_channels_last(x) else (pixels, channels, 1, pixels)


def instance_mean_reduce(
    x: Tensor,  # [B, C, H, W]
    rows: Tensor,  # [B, H, W]
    offsets: Tensor,  # [B + 1]
    sums: Tensor,  # [N, C]
) -> None:
    pixels, channels, pixel, plane = _shape(x)
    block, group = common.block_of(pixels, PIXELS), common.block_of(channels, CHANNELS)
    blocks = triton.cdiv(pixels, block)
    instance_mean_reduce_kernel[(x.shape[0] * blocks, triton.cdiv(channels, group))](
        x, rows, sums, pixels, channels, blocks, pixel, plane, BLOCK=block, GROUP=group
    )


def instance_mean_reduce_sorted(
    x: Tensor,  # [B, C, H, W]
    order: Tensor,  # [B * H * W]
    starts: Tensor,  # [N + 1]
    partial: Tensor,  # [pieces, N, C]
) -> None:
    pixels, channels, pixel, plane = _shape(x)
    pieces, n, _ = partial.shape
    block = common.block_of(x.shape[0] * pixels // (n * pieces), PIXELS)
    group = common.block_of(channels, CHANNELS)
    instance_mean_reduce_sorted_kernel[(n, pieces, triton.cdiv(channels, group))](
        x, order, starts, partial, n, pixels, channels, pieces, pixel, plane, BLOCK=block, GROUP=group
    )


def instance_mean_broadcast(
    table: Tensor,  # [N, C]
    rows: Tensor,  # [B, H, W]
    counts: Tensor | None,  # [N]
    y: Tensor,  # [B, C, H, W]
) -> None:
    pixels, channels, pixel, plane = _shape(y)
    block, group = common.block_of(pixels, PIXELS), common.block_of(channels, CHANNELS)
    blocks = triton.cdiv(pixels, block)
    instance_mean_broadcast_kernel[(y.shape[0] * blocks, triton.cdiv(channels, group))](
        table,
        rows,
        counts,
        y,
        pixels,
        channels,
        blocks,
        pixel,
        plane,
        DIVIDE=counts is not None,
        BLOCK=block,
        GROUP=group,
    )
