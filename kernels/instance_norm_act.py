"""instance_norm_act: instance norm, activation, residual add and padding for the next convolution.

A tile is S pixels of L planes. In contiguous images its pixels are adjacent, in channels_last images its planes are:
the channels of one image. Where planes are small or many, one program does all for its L planes. Where they are few and
large, programs share a plane in chunks: partial results go to scratch, a second kernel merges them in a fixed order, a
third makes the output.

Statistics are those of x minus the first pixel of its plane, two-pass within a tile and merged by the formula of Chan,
Golub and LeVeque: nothing cancels, and a constant plane has exactly no variance. The output is made pixel by pixel of
the padded image, which finds its source; the gradient pixel by pixel of the source, which finds the borders it went to.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

TILE = 2048  # elements; half of them where gradients are gathered from borders, which takes registers
LANES = 64  # channels of a tile at most, in channels_last images
CHUNKS = 512  # of a plane at most
REFLECT, ZERO, REPLICATE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
NONE, RELU = tl.constexpr(0), tl.constexpr(1)


@triton.jit
def _planes(group, planes, channels, LAST: tl.constexpr, L: tl.constexpr):
    """The L planes of a group, [1, L]: their number, image, channel, and which of them exist."""
    lane = tl.arange(0, L)[None, :]
    if LAST:
        groups = tl.cdiv(channels, L)
        image = tl.cast(group // groups, tl.int64)
        channel = group % groups * L + lane
        return image * channels + channel, image + 0 * channel, channel, channel < channels
    else:
        plane = tl.cast(group, tl.int64) * L + lane
        return plane, plane // channels, plane % channels, plane < planes


@triton.jit
def _start(plane, image, channel, pixels, pixel, LAST: tl.constexpr):
    """Offset of the first pixel of planes in a dense image of so many pixels."""
    if LAST:
        return image * pixels * pixel + channel
    else:
        return plane * pixels


@triton.jit
def _position(first, width, S: tl.constexpr):
    """Row and column [S, 1] of S pixels from number `first` on, in an image so wide.

    A multiplication by the reciprocal, corrected, in place of a division for every pixel.
    """
    i = tl.cast(first % width, tl.int32) + tl.arange(0, S)[:, None]
    rows = (i.to(tl.float32) * (1.0 / width)).to(tl.int32)
    column = i - rows * width
    rows += tl.where(column >= width, 1, 0) - tl.where(column < 0, 1, 0)
    return tl.cast(first // width, tl.int32) + rows, i - rows * width


@triton.jit
def _statistics(x, begin, end, pixels, pixel, valid, S: tl.constexpr, L: tl.constexpr):
    """Mean, less the first pixel of the plane, and sum of squared deviations of tiles begin to end - 1; all [1, L]."""
    shift = tl.load(x, mask=valid, other=0.0).to(tl.float32)
    mean = tl.full([1, L], 0.0, tl.float32)
    m2 = tl.full([1, L], 0.0, tl.float32)
    i = tl.arange(0, S)[:, None]
    for tile in range(begin, end):
        first = tl.cast(tile, tl.int64) * S
        inside = (i < pixels - first) & valid
        d = tl.load(x + first * pixel + i * pixel, mask=inside, other=0.0).to(tl.float32)
        d = tl.where(inside, d - shift, 0.0)
        n = tl.minimum(pixels - first, S).to(tl.float32)
        before = (tl.cast(tile - begin, tl.int64) * S).to(tl.float32)
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
    scale, shift = tl.full(channel.shape, 1.0, tl.float32), tl.full(channel.shape, 0.0, tl.float32)
    if weight is not None:
        scale = tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
    return scale, shift


@triton.jit
def _write(
    x,
    residual,
    y,
    mean,
    rstd,
    scale,
    shift,
    begin,
    end,
    height,
    width,
    pixel,
    row_stride,
    column_stride,
    slope,
    pad,
    valid,
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,
    MODE: tl.constexpr,
    S: tl.constexpr,
):
    """Tiles begin to end - 1 of the output; x, residual, y and what belongs to planes are [1, L]."""
    out_width = width + 2 * pad
    pixels = tl.cast(height + 2 * pad, tl.int64) * out_width
    i = tl.arange(0, S)[:, None]
    for tile in range(begin, end):
        first = tl.cast(tile, tl.int64) * S
        inside = (i < pixels - first) & valid
        source = inside
        if PADDED:
            row, column = _position(first, out_width, S)
            row, column = row - pad, column - pad
            if MODE == REFLECT:
                row, column = (
                    height - 1 - tl.abs(height - 1 - tl.abs(row)),
                    width - 1 - tl.abs(width - 1 - tl.abs(column)),
                )
            elif MODE == REPLICATE:
                row = tl.minimum(tl.maximum(row, 0), height - 1)
                column = tl.minimum(tl.maximum(column, 0), width - 1)
            else:
                source = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (row.to(tl.int64) * width + column) * pixel
        else:
            at = first * pixel + i * pixel
        z = tl.load(x + at, mask=source, other=0.0).to(tl.float32)
        z = (z - mean) * rstd * scale + shift
        if ACTIVATION == RELU:
            z = tl.where(z < 0, 0.0, z)
        elif ACTIVATION != NONE:
            z = tl.where(z < 0, z * slope, z)
        if residual is not None:
            if not PADDED:
                row, column = _position(first, width, S)
            at = row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride
            z += tl.load(residual + at, mask=source, other=0.0).to(tl.float32)
        if PADDED and MODE == ZERO:
            z = tl.where(source, z, 0.0)
        tl.store(y + first * pixel + i * pixel, z.to(y.dtype.element_ty), mask=inside)


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
    pixel,  # elements from one pixel to the next: C in channels_last images, else 1
    batch_stride,  # of residual, as the next three
    channel_stride,
    row_stride,
    column_stride,
    groups,  # of L planes
    tiles,  # of output that a program makes
    slope,  # of leaky_relu
    eps,
    pad,
    STATISTICS: tl.constexpr,  # whether this program has its planes to itself and makes their statistics
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,  # pad > 0
    MODE: tl.constexpr,  # of padding
    LAST: tl.constexpr,  # channels_last
    S: tl.constexpr,
    L: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, LAST, L)
    pixels = tl.cast(height, tl.int64) * width
    out_pixels = tl.cast(height + 2 * pad, tl.int64) * (width + 2 * pad)
    x += _start(plane, image, channel, pixels, pixel, LAST)
    y += _start(plane, image, channel, out_pixels, pixel, LAST)
    if residual is not None:
        residual += image * batch_stride + channel.to(tl.int64) * channel_stride
    if STATISTICS:
        m, m2 = _statistics(x, 0, tl.cdiv(pixels, S).to(tl.int32), pixels, pixel, valid, S, L)
        m, r = _finish(x, m, m2, pixels, eps, valid)
        tl.store(mean + plane, m, mask=valid)
        tl.store(rstd + plane, r, mask=valid)
    else:
        m, r = tl.load(mean + plane, mask=valid, other=0.0), tl.load(rstd + plane, mask=valid, other=0.0)
    scale, shift = _affine(weight, bias, channel, valid)
    begin = program // groups * tiles
    end = tl.minimum(begin + tiles, tl.cdiv(out_pixels, S).to(tl.int32))
    _write(
        x, residual, y, m, r, scale, shift, begin, end, height, width, pixel, row_stride, column_stride, slope, pad,
        valid, ACTIVATION, PADDED, MODE, S,
    )  # fmt: skip


@triton.jit
def instance_norm_act_stats_kernel(
    x,  # [B, C, H, W]
    partial,  # [2, chunks, B C]: mean less the plane's first pixel, sum of squared deviations
    planes,  # B C
    channels,
    pixels,  # of a plane
    pixel,  # elements from one pixel to the next
    groups,  # of L planes
    chunks,  # of a plane
    tiles,  # of a chunk
    LAST: tl.constexpr,  # channels_last
    S: tl.constexpr,
    L: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, LAST, L)
    x += _start(plane, image, channel, pixels, pixel, LAST)
    chunk = program // groups
    end = tl.minimum((chunk + 1) * tiles, tl.cdiv(pixels, S))
    # The shift is the first pixel of the plane: _statistics takes that of its first argument.
    mean, m2 = _statistics(x, chunk * tiles, end, pixels, pixel, valid, S, L)
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
    pixel,  # elements from one pixel to the next
    chunks,
    chunk_pixels,  # of every chunk but the last
    eps,
    LAST: tl.constexpr,  # channels_last
    K: tl.constexpr,  # chunks, rounded up
    L: tl.constexpr,
):
    plane = tl.program_id(0).to(tl.int64) * L + tl.arange(0, L)[None, :]
    valid = plane < planes
    chunk = tl.arange(0, K)[:, None]
    inside = (chunk < chunks) & valid
    at = chunk.to(tl.int64) * planes + plane
    means = tl.load(partial + at, mask=inside, other=0.0)
    m2 = tl.load(partial + tl.cast(chunks, tl.int64) * planes + at, mask=inside, other=0.0)
    left = tl.maximum(pixels - chunk.to(tl.int64) * chunk_pixels, 0)
    n = tl.minimum(left, chunk_pixels).to(tl.float32)
    m = tl.sum(means * (n / tl.cast(pixels, tl.float32)), 0, keep_dims=True)
    d = tl.where(inside, means - m, 0.0)
    m2 = tl.sum(m2 + d * d * n, 0, keep_dims=True)
    x += _start(plane, plane // channels, plane % channels, pixels, pixel, LAST)
    m, r = _finish(x, m, m2, pixels, eps, valid)
    tl.store(mean + plane, m, mask=valid)
    tl.store(rstd + plane, r, mask=valid)


@triton.jit
def _fold_row(dy, row, exists, column, width, pixel, pad, g):
    """Add to g what a row of dy, the padded gradient, holds for columns of the source, reflected ones too."""
    out_width = width + 2 * pad
    dy += row.to(tl.int64) * out_width * pixel
    g += tl.load(dy + (column + pad) * pixel, mask=exists, other=0.0).to(tl.float32)
    left = exists & (column >= 1) & (column <= pad)
    g += tl.load(dy + (pad - column) * pixel, mask=left, other=0.0).to(tl.float32)
    mirrored = 2 * (width - 1) - column
    right = exists & (column < width - 1) & (mirrored < width + pad)
    return g + tl.load(dy + (mirrored + pad) * pixel, mask=right, other=0.0).to(tl.float32)


@triton.jit
def _folded(dy, first, inside, height, width, pixel, pad, PADDED: tl.constexpr, MODE: tl.constexpr, S: tl.constexpr):
    """The gradient [S, L] of source pixels from number `first` on, before padding; dy [1, L]."""
    if not PADDED:
        at = first * pixel + tl.arange(0, S)[:, None] * pixel
        return tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    row, column = _position(first, width, S)
    out_width = width + 2 * pad
    if MODE == REFLECT:
        g = _fold_row(dy, row + pad, inside, column, width, pixel, pad, inside.to(tl.float32) * 0.0)
        if first < tl.cast(pad + 1, tl.int64) * width:
            g = _fold_row(dy, pad - row, inside & (row >= 1) & (row <= pad), column, width, pixel, pad, g)
        if first + S > tl.cast(height - 1 - pad, tl.int64) * width:
            mirrored = 2 * (height - 1) - row
            exists = inside & (row < height - 1) & (mirrored < height + pad)
            g = _fold_row(dy, mirrored + pad, exists, column, width, pixel, pad, g)
    elif MODE == REPLICATE:
        g = inside.to(tl.float32) * 0.0
        for i in range(-pad, pad + 1):
            exists = inside & (tl.minimum(tl.maximum(row + i, 0), height - 1) == row)
            for j in range(-pad, pad + 1):
                same = exists & (tl.minimum(tl.maximum(column + j, 0), width - 1) == column)
                at = ((row + pad + i).to(tl.int64) * out_width + (column + pad + j)) * pixel
                g += tl.load(dy + at, mask=same, other=0.0).to(tl.float32)
    else:
        at = ((row + pad).to(tl.int64) * out_width + (column + pad)) * pixel
        g = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    return g


@triton.jit
def _gradients(
    dy,
    x,
    mean,
    rstd,
    scale,
    shift,
    tile,
    height,
    width,
    pixel,
    slope,
    pad,
    valid,
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,
    MODE: tl.constexpr,
    S: tl.constexpr,
):
    """Of a tile [S, L] of the source: offsets, which exist, gradient of the output and of z, normalised x."""
    first = tl.cast(tile, tl.int64) * S
    i = tl.arange(0, S)[:, None]
    inside = (i < tl.cast(height, tl.int64) * width - first) & valid
    at = first * pixel + i * pixel
    g = _folded(dy, first, inside, height, width, pixel, pad, PADDED, MODE, S)
    xhat = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - mean) * rstd
    dz = g
    if ACTIVATION == RELU:
        dz = tl.where(xhat * scale + shift <= 0, 0.0, g)
    elif ACTIVATION != NONE:
        dz = tl.where(xhat * scale + shift <= 0, g * slope, g)
    return at, inside, g, dz, xhat


@triton.jit
def _sums(
    dy,
    x,
    mean,
    rstd,
    scale,
    shift,
    begin,
    end,
    height,
    width,
    pixel,
    slope,
    pad,
    valid,
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,
    MODE: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
):
    """Sums [1, L] of dz and of dz xhat over tiles begin to end - 1."""
    sum0 = tl.full([S, L], 0.0, tl.float32)
    sum1 = tl.full([S, L], 0.0, tl.float32)
    for tile in range(begin, end):
        _, _, _, dz, xhat = _gradients(
            dy, x, mean, rstd, scale, shift, tile, height, width, pixel, slope, pad, valid, ACTIVATION, PADDED, MODE, S
        )
        sum0 += dz
        sum1 += dz * xhat
    return tl.sum(sum0, 0, keep_dims=True), tl.sum(sum1, 0, keep_dims=True)


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
    sums,  # [2, B, C], written if SUMS, else read
    planes,  # B C
    channels,
    height,
    width,
    pixel,  # elements from one pixel to the next: C in channels_last images, else 1
    groups,  # of L planes
    tiles,  # that a program makes
    slope,  # of leaky_relu
    pad,
    SUMS: tl.constexpr,  # whether this program has its planes to itself and makes their sums
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,  # pad > 0
    MODE: tl.constexpr,  # of padding
    LAST: tl.constexpr,  # channels_last
    S: tl.constexpr,
    L: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, LAST, L)
    pixels = tl.cast(height, tl.int64) * width
    start = _start(plane, image, channel, pixels, pixel, LAST)
    x += start
    dx += start
    if dresidual is not None:
        dresidual += start
    dy += _start(plane, image, channel, tl.cast(height + 2 * pad, tl.int64) * (width + 2 * pad), pixel, LAST)
    m, r = tl.load(mean + plane, mask=valid, other=0.0), tl.load(rstd + plane, mask=valid, other=0.0)
    scale, shift = _affine(weight, bias, channel, valid)
    begin = program // groups * tiles
    end = tl.minimum(begin + tiles, tl.cdiv(pixels, S).to(tl.int32))
    if SUMS:
        sum0, sum1 = _sums(
            dy, x, m, r, scale, shift, begin, end, height, width, pixel, slope, pad, valid,
            ACTIVATION, PADDED, MODE, S, L,
        )  # fmt: skip
        tl.store(sums + plane, sum0, mask=valid)
        tl.store(sums + planes + plane, sum1, mask=valid)
    else:
        sum0 = tl.load(sums + plane, mask=valid, other=0.0)
        sum1 = tl.load(sums + planes + plane, mask=valid, other=0.0)
    mean0, mean1 = sum0 / tl.cast(pixels, tl.float32), sum1 / tl.cast(pixels, tl.float32)
    for tile in range(begin, end):
        at, inside, g, dz, xhat = _gradients(
            dy, x, m, r, scale, shift, tile, height, width, pixel, slope, pad, valid, ACTIVATION, PADDED, MODE, S
        )
        if dresidual is not None:
            tl.store(dresidual + at, g.to(dresidual.dtype.element_ty), mask=inside)
        d = (dz - mean0 - xhat * mean1) * (scale * r)
        tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def instance_norm_act_sums_kernel(
    dy,  # [B, C, H + 2 pad, W + 2 pad]
    x,  # [B, C, H, W]
    weight,  # [C] or None
    bias,  # [C] or None
    mean,  # [B, C]
    rstd,  # [B, C]
    partial,  # [2, chunks, B C]
    planes,  # B C
    channels,
    height,
    width,
    pixel,  # elements from one pixel to the next
    groups,  # of L planes
    chunks,  # of a plane
    tiles,  # of a chunk
    slope,  # of leaky_relu
    pad,
    ACTIVATION: tl.constexpr,
    PADDED: tl.constexpr,  # pad > 0
    MODE: tl.constexpr,  # of padding
    LAST: tl.constexpr,  # channels_last
    S: tl.constexpr,
    L: tl.constexpr,
):
    program = tl.program_id(0)
    plane, image, channel, valid = _planes(program % groups, planes, channels, LAST, L)
    pixels = tl.cast(height, tl.int64) * width
    x += _start(plane, image, channel, pixels, pixel, LAST)
    dy += _start(plane, image, channel, tl.cast(height + 2 * pad, tl.int64) * (width + 2 * pad), pixel, LAST)
    m, r = tl.load(mean + plane, mask=valid, other=0.0), tl.load(rstd + plane, mask=valid, other=0.0)
    scale, shift = _affine(weight, bias, channel, valid)
    chunk = program // groups
    end = tl.minimum((chunk + 1) * tiles, tl.cdiv(pixels, S).to(tl.int32))
    begin = chunk * tiles
    sum0, sum1 = _sums(
        dy, x, m, r, scale, shift, begin, end, height, width, pixel, slope, pad, valid, ACTIVATION, PADDED, MODE, S, L
    )
    at = tl.cast(chunk, tl.int64) * planes + plane
    tl.store(partial + at, sum0, mask=valid)
    tl.store(partial + tl.cast(chunks, tl.int64) * planes + at, sum1, mask=valid)


@triton.jit
def instance_norm_act_merge_sums_kernel(
    partial,  # [2, chunks, B C]
    sums,  # [2, B, C]
    planes,  # B C
    chunks,
    K: tl.constexpr,  # chunks, rounded up
    L: tl.constexpr,
):
    plane = tl.program_id(0).to(tl.int64) * L + tl.arange(0, L)[None, :]
    valid = plane < planes
    chunk = tl.arange(0, K)[:, None]
    inside = (chunk < chunks) & valid
    at = chunk.to(tl.int64) * planes + plane
    sum0 = tl.load(partial + at, mask=inside, other=0.0)
    sum1 = tl.load(partial + tl.cast(chunks, tl.int64) * planes + at, mask=inside, other=0.0)
    tl.store(sums + plane, tl.sum(sum0, 0, keep_dims=True), mask=valid)
    tl.store(sums + planes + plane, tl.sum(sum1, 0, keep_dims=True), mask=valid)


@dataclass(frozen=True)
class _Plan:
    """How the planes of an image are shared out."""

    planes: int
    channels: int
    pixels: int
    pixel: int  # elements from one pixel to the next
    last: bool  # channels_last
    s: int  # pixels of a tile
    lanes: int  # planes of a tile
    groups: int  # of so many planes
    chunks: int  # of a plane; 1 where one program does all
    tiles: int  # of a chunk

    def tiles_of(self, pixels: int, processors: int) -> tuple[int, int]:
        """Programs for planes of so many pixels, and the tiles that each makes."""
        total = triton.cdiv(pixels, self.s)
        if self.chunks == 1:
            return self.groups, total
        tiles = triton.cdiv(total * self.groups, 16 * processors)
        return self.groups * triton.cdiv(total, tiles), tiles


def _plan(x: Tensor, scratch: Tensor, tile: int = TILE) -> _Plan:
    batch, channels, height, width = x.shape
    planes, pixels, last = batch * channels, height * width, common.is_channels_last(x)
    if last:
        lanes = common.block_of(channels, LANES)
        s = common.block_of(pixels, tile // lanes)
        groups = batch * triton.cdiv(channels, lanes)
    else:
        s = common.block_of(pixels, tile)
        lanes = common.block_of(planes, tile // s)
        groups = triton.cdiv(planes, lanes)
    total, processors = triton.cdiv(pixels, s), common.processors(x)
    tiles = total
    if total > 2 and groups < 4 * processors:
        most = min(CHUNKS, scratch.numel() // (2 * planes))
        tiles = triton.cdiv(total, max(1, min(total, most, 16 * processors // groups)))
    return _Plan(
        planes, channels, pixels, channels if last else 1, last, s, lanes, groups, triton.cdiv(total, tiles), tiles
    )


def instance_norm_act_fwd(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scratch: Tensor,
    activation: int,
    negative_slope: float,
    eps: float,
    pad: int,
    pad_mode: int,
) -> None:
    """x [B, C, H, W] -> y [B, C, H + 2 pad, W + 2 pad], mean and rstd [B, C]."""
    plan = _plan(x, scratch)
    alone = plan.chunks == 1
    tile = {"LAST": plan.last, "S": plan.s, "L": plan.lanes}
    if not alone:
        instance_norm_act_stats_kernel[(plan.groups * plan.chunks,)](
            x, scratch, plan.planes, plan.channels, plan.pixels, plan.pixel, plan.groups, plan.chunks, plan.tiles,
            **tile,
        )  # fmt: skip
        k = triton.next_power_of_2(plan.chunks)
        lanes = common.block_of(plan.planes, max(TILE // k, 1))
        instance_norm_act_merge_stats_kernel[(triton.cdiv(plan.planes, lanes),)](
            x, scratch, mean, rstd, plan.planes, plan.channels, plan.pixels, plan.pixel, plan.chunks,
            plan.tiles * plan.s, eps, LAST=plan.last, K=k, L=lanes,
        )  # fmt: skip
    height, width = x.shape[2:]
    programs, tiles = plan.tiles_of(y.shape[2] * y.shape[3], common.processors(x))
    strides = (0, 0, 0, 0) if residual is None else residual.stride()
    instance_norm_act_fwd_kernel[(programs,)](
        x, weight, bias, residual, y, mean, rstd, plan.planes, plan.channels, height, width, plan.pixel, *strides,
        plan.groups, tiles, negative_slope, eps, pad,
        STATISTICS=alone, ACTIVATION=activation, PADDED=pad > 0, MODE=pad_mode, **tile,
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
    activation: int,
    negative_slope: float,
    pad: int,
    pad_mode: int,
) -> None:
    """dy [B, C, H + 2 pad, W + 2 pad] -> dx and dresidual [B, C, H, W], sums [2, B, C] of dz and of dz xhat."""
    plan = _plan(x, scratch, TILE // 2 if pad else TILE)
    alone = plan.chunks == 1
    height, width = x.shape[2:]
    constants = {"ACTIVATION": activation, "PADDED": pad > 0, "MODE": pad_mode}
    constants |= {"LAST": plan.last, "S": plan.s, "L": plan.lanes}
    sizes = (plan.planes, plan.channels, height, width, plan.pixel, plan.groups)
    if not alone:
        instance_norm_act_sums_kernel[(plan.groups * plan.chunks,)](
            dy, x, weight, bias, mean, rstd, scratch, *sizes, plan.chunks, plan.tiles, negative_slope, pad, **constants
        )
        k = triton.next_power_of_2(plan.chunks)
        lanes = common.block_of(plan.planes, max(TILE // k, 1))
        instance_norm_act_merge_sums_kernel[(triton.cdiv(plan.planes, lanes),)](
            scratch, sums, plan.planes, plan.chunks, K=k, L=lanes
        )
    programs, tiles = plan.tiles_of(plan.pixels, common.processors(x))
    instance_norm_act_bwd_kernel[(programs,)](
        dy, x, weight, bias, mean, rstd, dx, dresidual, sums, *sizes, tiles, negative_slope, pad,
        SUMS=alone, **constants,
    )  # fmt: skip
