"""instance_norm_act: instance norm, activation, residual add and padding for the next convolution.

A tile is BLOCK_PIXELS pixels of BLOCK_PLANES planes. In contiguous images its pixels are adjacent, in channels_last
images its planes are: the channels of one image. Where planes are small or many, one program does all for its planes.
Where they are few and large, programs share a plane in chunks: partial results go to scratch, are merged in a fixed
order, and another launch makes the output.

Statistics are those of x minus the first pixel of its plane, two-pass within a tile and merged by the formula of Chan,
Golub and LeVeque: nothing cancels, and a constant plane has exactly no variance. The output is made pixel by pixel of
the padded image, which finds its source; the gradient pixel by pixel of the source, which finds the borders it went to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

TILE = 2048  # elements; half of them where gradients are gathered from borders, which takes registers
CHANNELS = 64  # of a tile at most, in channels_last images
CHUNKS = 512  # of a plane at most
SPARE_CHUNKS = 49152  # of all planes together at most, beyond one for each


@triton.jit
def _planes(group, planes, channels, CHANNELS_LAST: tl.constexpr, BLOCK_PLANES: tl.constexpr):
    """The planes of a group, [1, BLOCK_PLANES]: their number, image, channel, and which of them exist."""
    lane = tl.arange(0, BLOCK_PLANES)[None, :]
    if CHANNELS_LAST:
        groups = tl.cdiv(channels, BLOCK_PLANES)
        image = tl.cast(group // groups, tl.int64)
        channel = group % groups * BLOCK_PLANES + lane
        return image * channels + channel, image + 0 * channel, channel, channel < channels
    else:
        plane = tl.cast(group, tl.int64) * BLOCK_PLANES + lane
        return plane, plane // channels, plane % channels, plane < planes


@triton.jit
def _start(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST: tl.constexpr):
    """Offset of the first pixel of planes in a dense image of so many pixels."""
    if CHANNELS_LAST:
        return image * pixels * pixel_stride + channel
    else:
        return plane * pixels


@triton.jit
def _position(first, width, BLOCK_PIXELS: tl.constexpr):
    """Row and column [BLOCK_PIXELS, 1] of the pixels from number `first` on, in an image so wide.

    A multiplication by the reciprocal, corrected, takes the place of a division for every pixel.
    """
    i = tl.cast(first % width, tl.int32) + tl.arange(0, BLOCK_PIXELS)[:, None]
    rows = (i.to(tl.float32) * (1.0 / width)).to(tl.int32)
    column = i - rows * width
    rows += tl.where(column >= width, 1, 0) - tl.where(column < 0, 1, 0)
    return tl.cast(first // width, tl.int32) + rows, i - rows * width


@triton.jit
def _statistics(x, begin, end, pixels, pixel_stride, valid, BLOCK_PIXELS: tl.constexpr, BLOCK_PLANES: tl.constexpr):
    """Means, less the first pixel of the plane, and sums of squared deviations of tiles begin to end - 1, by plane."""
    shift = tl.load(x, mask=valid, other=0.0).to(tl.float32)
    mean = tl.full([1, BLOCK_PLANES], 0.0, tl.float32)
    m2 = tl.full([1, BLOCK_PLANES], 0.0, tl.float32)
    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    for tile in range(begin, end):
        first = tl.cast(tile, tl.int64) * BLOCK_PIXELS
        inside = (i < pixels - first) & valid
        d = tl.load(x + first * pixel_stride + i * pixel_stride, mask=inside, other=0.0).to(tl.float32)
        d = tl.where(inside, d - shift, 0.0)
        n = tl.minimum(pixels - first, BLOCK_PIXELS).to(tl.float32)
        before = (tl.cast(tile - begin, tl.int64) * BLOCK_PIXELS).to(tl.float32)
        tile_mean = tl.sum(d, 0, keep_dims=True) / n
        d = tl.where(inside, d - tile_mean, 0.0)
        delta = tile_mean - mean
        mean += delta * (n / (before + n))
        m2 += tl.sum(d * d, 0, keep_dims=True) + delta * delta * (before * n / (before + n))
    return mean, m2


@triton.jit
def _finish(x, mean, m2, pixels, eps, valid):
    """Mean and 1 / standard deviation from those of _statistics."""
    variance = m2 / tl.cast(pixels, tl.float32)
    return tl.load(x, mask=valid, other=0.0).to(tl.float32) + mean, 1.0 / tl.sqrt_rn(variance + eps)


@triton.jit
def _affine(weight, bias, channel, valid):
    """Scale and shift of planes."""
    scale, shift = tl.full(channel.shape, 1.0, tl.float32), tl.full(channel.shape, 0.0, tl.float32)
    if weight is not None:
        scale = tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
    return scale, shift


@triton.jit
def instance_norm_act_fwd_kernel(
    x,  # [B, C, H, W]
    weight,  # [C] or None
    bias,  # [C] or None
    residual,  # [B, C, H, W] or None
    y,  # [B, C, H + 2 pad, W + 2 pad]
    mean,  # [B, C], written if STATISTICS, else read
    rstd,  # [B, C], likewise
    planes,  # B C
    channels,
    height,
    width,
    pixel_stride,  # elements from one pixel to the next: C in channels_last images, else 1
    batch_stride,  # of residual, as the next three
    channel_stride,
    row_stride,
    column_stride,
    groups,  # of BLOCK_PLANES planes
    tiles,  # of output that a program makes
    slope,  # of leaky_relu
    eps,
    pad,
    STATISTICS: tl.constexpr,  # whether this program has its planes to itself and makes their statistics
    ACTIVATION: tl.constexpr,
    PAD_MODE: tl.constexpr,  # "none" where pad is 0
    CHANNELS_LAST: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, CHANNELS_LAST, BLOCK_PLANES)
    pixels = tl.cast(height, tl.int64) * width
    out_width = width + 2 * pad
    out_pixels = tl.cast(height + 2 * pad, tl.int64) * out_width
    x += _start(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST)
    y += _start(plane, image, channel, out_pixels, pixel_stride, CHANNELS_LAST)
    if residual is not None:
        residual += image * batch_stride + channel.to(tl.int64) * channel_stride
    if STATISTICS:
        all_tiles = tl.cdiv(pixels, BLOCK_PIXELS).to(tl.int32)
        m, m2 = _statistics(x, 0, all_tiles, pixels, pixel_stride, valid, BLOCK_PIXELS, BLOCK_PLANES)
        m, r = _finish(x, m, m2, pixels, eps, valid)
        tl.store(mean + plane, m, mask=valid)
        tl.store(rstd + plane, r, mask=valid)
    else:
        m, r = tl.load(mean + plane, mask=valid, other=0.0), tl.load(rstd + plane, mask=valid, other=0.0)
    scale, shift = _affine(weight, bias, channel, valid)
    begin = program // groups * tiles
    end = tl.minimum(begin + tiles, tl.cdiv(out_pixels, BLOCK_PIXELS).to(tl.int32))
    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    for tile in range(begin, end):
        first = tl.cast(tile, tl.int64) * BLOCK_PIXELS
        inside = (i < out_pixels - first) & valid
        source = inside
        if PAD_MODE != "none":
            row, column = _position(first, out_width, BLOCK_PIXELS)
            row, column = row - pad, column - pad
            if PAD_MODE == "reflect":
                row = height - 1 - tl.abs(height - 1 - tl.abs(row))
                column = width - 1 - tl.abs(width - 1 - tl.abs(column))
            elif PAD_MODE == "replicate":
                row = tl.minimum(tl.maximum(row, 0), height - 1)
                column = tl.minimum(tl.maximum(column, 0), width - 1)
            else:
                source = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (row.to(tl.int64) * width + column) * pixel_stride
        else:
            at = first * pixel_stride + i * pixel_stride
        z = tl.load(x + at, mask=source, other=0.0).to(tl.float32)
        z = (z - m) * r * scale + shift
        if ACTIVATION == "relu":
            z = tl.where(z < 0, 0.0, z)
        elif ACTIVATION == "leaky_relu":
            z = tl.where(z < 0, z * slope, z)
        if residual is not None:
            if PAD_MODE == "none":
                row, column = _position(first, width, BLOCK_PIXELS)
            at = row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
            z += tl.load(residual + at, mask=source, other=0.0).to(tl.float32)
        if PAD_MODE == "zero":
            z = tl.where(source, z, 0.0)
        tl.store(y + first * pixel_stride + i * pixel_stride, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
def instance_norm_act_stats_kernel(
    x,  # [B, C, H, W]
    partial,  # [2, chunks, B C]: mean less the plane's first pixel, sum of squared deviations
    planes,  # B C
    channels,
    pixels,  # of a plane
    pixel_stride,  # elements from one pixel to the next
    groups,  # of BLOCK_PLANES planes
    chunks,  # of a plane
    tiles,  # of a chunk
    CHANNELS_LAST: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, CHANNELS_LAST, BLOCK_PLANES)
    x += _start(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST)
    chunk = program // groups
    end = tl.minimum((chunk + 1) * tiles, tl.cdiv(pixels, BLOCK_PIXELS))
    # The shift is the first pixel of the plane: _statistics takes that of its first argument.
    mean, m2 = _statistics(x, chunk * tiles, end, pixels, pixel_stride, valid, BLOCK_PIXELS, BLOCK_PLANES)
    at = tl.cast(chunk, tl.int64) * planes + plane
    tl.store(partial + at, mean, mask=valid)
    tl.store(partial + tl.cast(chunks, tl.int64) * planes + at, m2, mask=valid)


@triton.jit
def instance_norm_act_merge_stats_kernel(
    x,  # [B, C, H, W]
    partial,  # [2, chunks, B C]
    mean,  # [B, C]
    rstd,  # [B, C]
    planes,  # B C
    channels,
    pixels,  # of a plane
    pixel_stride,  # elements from one pixel to the next
    chunks,
    chunk_pixels,  # of every chunk but the last
    eps,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,  # chunks, rounded up
    BLOCK_PLANES: tl.constexpr,
):
    plane = tl.program_id(0).to(tl.int64) * BLOCK_PLANES + tl.arange(0, BLOCK_PLANES)[None, :]
    valid = plane < planes
    chunk = tl.arange(0, BLOCK_CHUNKS)[:, None]
    inside = (chunk < chunks) & valid
    at = chunk.to(tl.int64) * planes + plane
    means = tl.load(partial + at, mask=inside, other=0.0)
    m2 = tl.load(partial + tl.cast(chunks, tl.int64) * planes + at, mask=inside, other=0.0)
    left = tl.maximum(pixels - chunk.to(tl.int64) * chunk_pixels, 0)
    n = tl.minimum(left, chunk_pixels).to(tl.float32)
    m = tl.sum(means * (n / tl.cast(pixels, tl.float32)), 0, keep_dims=True)
    d = tl.where(inside, means - m, 0.0)
    m2 = tl.sum(m2 + d * d * n, 0, keep_dims=True)
    x += _start(plane, plane // channels, plane % channels, pixels, pixel_stride, CHANNELS_LAST)
    m, r = _finish(x, m, m2, pixels, eps, valid)
    tl.store(mean + plane, m, mask=valid)
    tl.store(rstd + plane, r, mask=valid)


@triton.jit
def _fold_row(dy, row, exists, column, width, pixel_stride, pad, g):
    """Add to g what a row of dy, the padded gradient, holds for columns of the source, reflected ones too."""
    out_width = width + 2 * pad
    dy += row.to(tl.int64) * out_width * pixel_stride
    g += tl.load(dy + (column + pad) * pixel_stride, mask=exists, other=0.0).to(tl.float32)
    left = exists & (column >= 1) & (column <= pad)
    g += tl.load(dy + (pad - column) * pixel_stride, mask=left, other=0.0).to(tl.float32)
    mirrored = 2 * (width - 1) - column
    right = exists & (column < width - 1) & (mirrored < width + pad)
    return g + tl.load(dy + (mirrored + pad) * pixel_stride, mask=right, other=0.0).to(tl.float32)


@triton.jit
def _folded(dy, first, inside, height, width, pixel_stride, pad, PAD_MODE: tl.constexpr):
    """The gradient of a tile's source pixels from number `first` on, before padding; dy points to its planes."""
    BLOCK_PIXELS: tl.constexpr = inside.shape[0]
    if PAD_MODE == "none":
        at = first * pixel_stride + tl.arange(0, BLOCK_PIXELS)[:, None] * pixel_stride
        return tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    row, column = _position(first, width, BLOCK_PIXELS)
    out_width = width + 2 * pad
    if PAD_MODE == "reflect":
        g = _fold_row(dy, row + pad, inside, column, width, pixel_stride, pad, inside.to(tl.float32) * 0.0)
        if first < tl.cast(pad + 1, tl.int64) * width:
            g = _fold_row(dy, pad - row, inside & (row >= 1) & (row <= pad), column, width, pixel_stride, pad, g)
        if first + BLOCK_PIXELS > tl.cast(height - 1 - pad, tl.int64) * width:
            mirrored = 2 * (height - 1) - row
            exists = inside & (row < height - 1) & (mirrored < height + pad)
            g = _fold_row(dy, mirrored + pad, exists, column, width, pixel_stride, pad, g)
    elif PAD_MODE == "replicate":
        g = inside.to(tl.float32) * 0.0
        for i in range(-pad, pad + 1):
            exists = inside & (tl.minimum(tl.maximum(row + i, 0), height - 1) == row)
            for j in range(-pad, pad + 1):
                same = exists & (tl.minimum(tl.maximum(column + j, 0), width - 1) == column)
                at = ((row + pad + i).to(tl.int64) * out_width + (column + pad + j)) * pixel_stride
                g += tl.load(dy + at, mask=same, other=0.0).to(tl.float32)
    else:
        at = ((row + pad).to(tl.int64) * out_width + (column + pad)) * pixel_stride
        g = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    return g


@triton.jit
def _gradients(
    dy, x, mean, rstd, scale, shift, tile, height, width, pixel_stride, slope, pad, valid,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Of a tile of the source: offsets, which of them exist, gradients of the output and of z, normalised x."""
    first = tl.cast(tile, tl.int64) * BLOCK_PIXELS
    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    inside = (i < tl.cast(height, tl.int64) * width - first) & valid
    at = first * pixel_stride + i * pixel_stride
    g = _folded(dy, first, inside, height, width, pixel_stride, pad, PAD_MODE)
    xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - mean) * rstd
    dz = g
    if ACTIVATION == "relu":
        dz = tl.where(xhat * scale + shift <= 0, 0.0, g)
    elif ACTIVATION == "leaky_relu":
        dz = tl.where(xhat * scale + shift <= 0, g * slope, g)
    return at, inside, g, dz, xhat


@triton.jit
def instance_norm_act_bwd_kernel(
    dy,  # [B, C, H + 2 pad, W + 2 pad]
    x,  # [B, C, H, W]
    weight,  # [C] or None
    bias,  # [C] or None
    mean,  # [B, C]
    rstd,  # [B, C]
    dx,  # [B, C, H, W]
    dresidual,  # [B, C, H, W] or None
    sums,  # [2, chunks, B C], written if SUMS, else read
    planes,  # B C
    channels,
    height,
    width,
    pixel_stride,  # elements from one pixel to the next: C in channels_last images, else 1
    groups,  # of BLOCK_PLANES planes
    chunks,  # of a plane whose sums are apart
    tiles,  # that a program makes
    slope,  # of leaky_relu
    pad,
    SUMS: tl.constexpr,  # whether this program makes sums, of a chunk of its planes or of all
    GRADIENT: tl.constexpr,  # whether it makes the gradients, for which it must know the sums of all
    ACTIVATION: tl.constexpr,
    PAD_MODE: tl.constexpr,  # "none" where pad is 0
    CHANNELS_LAST: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, CHANNELS_LAST, BLOCK_PLANES)
    pixels = tl.cast(height, tl.int64) * width
    start = _start(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST)
    x += start
    out_pixels = tl.cast(height + 2 * pad, tl.int64) * (width + 2 * pad)
    dy += _start(plane, image, channel, out_pixels, pixel_stride, CHANNELS_LAST)
    m, r = tl.load(mean + plane, mask=valid, other=0.0), tl.load(rstd + plane, mask=valid, other=0.0)
    scale, shift = _affine(weight, bias, channel, valid)
    chunk = program // groups
    begin = chunk * tiles
    end = tl.minimum(begin + tiles, tl.cdiv(pixels, BLOCK_PIXELS).to(tl.int32))
    dz_sum, product_sum = sums, sums + tl.cast(chunks, tl.int64) * planes
    if SUMS:
        sum0 = tl.full([BLOCK_PIXELS, BLOCK_PLANES], 0.0, tl.float32)
        sum1 = tl.full([BLOCK_PIXELS, BLOCK_PLANES], 0.0, tl.float32)
        for tile in range(begin, end):
            _, _, _, dz, xhat = _gradients(
                dy, x, m, r, scale, shift, tile, height, width, pixel_stride, slope, pad, valid, ACTIVATION, PAD_MODE,
                BLOCK_PIXELS,
            )  # fmt: skip
            sum0 += dz
            sum1 += dz * xhat
        sum0, sum1 = tl.sum(sum0, 0, keep_dims=True), tl.sum(sum1, 0, keep_dims=True)
        slot = tl.cast(chunk, tl.int64) * planes + plane
        tl.store(dz_sum + slot, sum0, mask=valid)
        tl.store(product_sum + slot, sum1, mask=valid)
    else:
        sum0 = tl.load(dz_sum + plane, mask=valid, other=0.0)
        sum1 = tl.load(product_sum + plane, mask=valid, other=0.0)
    if GRADIENT:
        dx += start
        if dresidual is not None:
            dresidual += start
        mean0, mean1 = sum0 / tl.cast(pixels, tl.float32), sum1 / tl.cast(pixels, tl.float32)
        for tile in range(begin, end):
            at, inside, g, dz, xhat = _gradients(
                dy, x, m, r, scale, shift, tile, height, width, pixel_stride, slope, pad, valid,
                ACTIVATION, PAD_MODE, BLOCK_PIXELS,
            )  # fmt: skip
            if dresidual is not None:
                tl.store(dresidual + at, g.to(dresidual.dtype.element_ty), mask=inside)
            d = (dz - mean0 - xhat * mean1) * (scale * r)
            tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class _Plan:
    """How the planes of an image are shared out."""

    planes: int
    channels: int
    pixels: int
    pixel_stride: int  # elements from one pixel to the next
    tile: dict[str, Any]  # its constants in the kernels
    groups: int  # of as many planes as a tile has
    chunks: int  # of a plane; 1 where one program does all
    tiles: int  # of a chunk

    def programs(self, x: Tensor, pixels: int) -> tuple[int, int]:
        """Programs that make an output of so many pixels, and the tiles that each makes."""
        total = triton.cdiv(pixels, self.tile["BLOCK_PIXELS"])
        if self.chunks == 1:
            return self.groups, total
        tiles = triton.cdiv(total * self.groups, 16 * common.processors(x))
        return self.groups * triton.cdiv(total, tiles), tiles

    def partial(self, scratch: Tensor) -> Tensor:
        """Room for two numbers of each chunk: [2, chunks, planes]."""
        return scratch[: 2 * self.chunks * self.planes].view(2, self.chunks, self.planes)


def _plan(x: Tensor, tile: int = TILE) -> _Plan:
    batch, channels, height, width = x.shape
    planes, pixels, channels_last = batch * channels, height * width, common.is_channels_last(x)
    if channels_last:
        block_planes = common.block_of(channels, CHANNELS)
        block_pixels = common.block_of(pixels, tile // block_planes)
        groups = batch * triton.cdiv(channels, block_planes)
    else:
        block_pixels = common.block_of(pixels, tile)
        block_planes = common.block_of(planes, tile // block_pixels)
        groups = triton.cdiv(planes, block_planes)
    total, processors = triton.cdiv(pixels, block_pixels), common.processors(x)
    tiles = total
    if total > 2 and groups < 4 * processors:
        tiles = triton.cdiv(total, max(1, min(total, _most_chunks(planes), 16 * processors // groups)))
    constants = {"CHANNELS_LAST": channels_last, "BLOCK_PIXELS": block_pixels, "BLOCK_PLANES": block_planes}
    pixel_stride = channels if channels_last else 1
    return _Plan(planes, channels, pixels, pixel_stride, constants, groups, triton.cdiv(total, tiles), tiles)


def _most_chunks(planes: int) -> int:
    return min(CHUNKS, 1 + SPARE_CHUNKS // planes)


def _options(slope: float, pad: int, pad_mode: str) -> dict[str, Any]:
    activation = "none" if slope == 1 else "relu" if slope == 0 else "leaky_relu"
    return {"ACTIVATION": activation, "PAD_MODE": pad_mode if pad else "none"}


def instance_norm_act_scratch(x: Tensor) -> int:
    """Elements of scratch that either direction needs at most: two numbers of each chunk."""
    planes = x.shape[0] * x.shape[1]
    return 2 * planes * _most_chunks(planes)


def instance_norm_act_fwd(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scratch: Tensor,
    slope: float,
    eps: float,
    pad: int,
    pad_mode: str,
) -> None:
    """x [B, C, H, W] -> y [B, C, H + 2 pad, W + 2 pad], mean and rstd [B, C]."""
    plan = _plan(x)
    alone = plan.chunks == 1
    if not alone:
        partial = plan.partial(scratch)
        instance_norm_act_stats_kernel[(plan.groups * plan.chunks,)](
            x, partial, plan.planes, plan.channels, plan.pixels, plan.pixel_stride,
            plan.groups, plan.chunks, plan.tiles, **plan.tile,
        )  # fmt: skip
        block_chunks = triton.next_power_of_2(plan.chunks)
        block_planes = common.block_of(plan.planes, max(TILE // block_chunks, 1))
        instance_norm_act_merge_stats_kernel[(triton.cdiv(plan.planes, block_planes),)](
            x, partial, mean, rstd, plan.planes, plan.channels, plan.pixels, plan.pixel_stride,
            plan.chunks, plan.tiles * plan.tile["BLOCK_PIXELS"], eps,
            CHANNELS_LAST=plan.tile["CHANNELS_LAST"], BLOCK_CHUNKS=block_chunks, BLOCK_PLANES=block_planes,
        )  # fmt: skip
    programs, tiles = plan.programs(x, y.shape[2] * y.shape[3])
    strides = (0, 0, 0, 0) if residual is None else residual.stride()
    instance_norm_act_fwd_kernel[(programs,)](
        x, weight, bias, residual, y, mean, rstd, plan.planes, plan.channels, *x.shape[2:], plan.pixel_stride,
        *strides, plan.groups, tiles, slope, eps, pad, STATISTICS=alone, **_options(slope, pad, pad_mode), **plan.tile,
    )  # fmt: skip


def instance_norm_act_bwd(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    dx: Tensor,
    dresidual: Tensor | None,
    sums: Tensor,
    scratch: Tensor,
    slope: float,
    pad: int,
    pad_mode: str,
) -> None:
    """dy [B, C, H + 2 pad, W + 2 pad] -> dx and dresidual [B, C, H, W], sums [2, B, C] of dz and of dz xhat."""
    plan = _plan(x, TILE // 2 if pad else TILE)

    def launch(programs: int, tiles: int, sums: Tensor, chunks: int, **phases: bool) -> None:
        results = (dx, dresidual) if phases["GRADIENT"] else (None, None)
        instance_norm_act_bwd_kernel[(programs,)](
            dy, x, weight, bias, mean, rstd, *results, sums, plan.planes, plan.channels, *x.shape[2:],
            plan.pixel_stride, plan.groups, chunks, tiles, slope, pad,
            **phases, **_options(slope, pad, pad_mode), **plan.tile,
        )  # fmt: skip

    if plan.chunks == 1:
        launch(plan.groups, plan.tiles, sums, 1, SUMS=True, GRADIENT=True)
        return
    partial = plan.partial(scratch)
    launch(plan.groups * plan.chunks, plan.tiles, partial, plan.chunks, SUMS=True, GRADIENT=False)
    torch.sum(partial, 1, out=sums.view(2, -1))
    launch(*plan.programs(x, plan.pixels), sums, 1, SUMS=False, GRADIENT=True)
