"""Forward kernels of instance_norm_act."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from hdgan.kernels._instance_norm_act_pixels import (
    Image,
    Size,
    end_of,
    exists,
    pixels_of,
    read_shifted,
    source_of,
    tiles_of,
    whole_groups,
)
from hdgan.kernels._instance_norm_act_tiles import (
    ALIGN,
    Norm,
    Planes,
    affine,
    finish,
    inside_of,
    is_full,
    planes_of_group,
    read,
    read_of_planes,
    start_of,
    statistics,
    write_of_planes,
)


class _ForwardImages(NamedTuple):
    """Images, or the planes of one program in them."""

    x: tl.tensor
    residual: tl.tensor  # or None
    y: tl.tensor
    row_stride: tl.tensor  # of the residual
    column_stride: tl.tensor


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
    WHOLE: tl.constexpr,  # whether BLOCK_PLANES divides the planes, or the channels
    LEADS: tl.constexpr,  # whether planes begin off the places that 16 bytes can be read from
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
    FOLD: tl.constexpr,
):
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    plane, image, channel, exist = planes_of_group(group, planes, channels, CHANNELS_LAST, BLOCK_PLANES, WHOLE)
    start, lead = start_of(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, LEADS)
    x += start
    end = tl.minimum((chunk + 1) * tiles, (lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
    shift = read_of_planes(x + lead, exist)
    mean, m2 = statistics(
        x, chunk * tiles, end, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS, FOLD
    )  # fmt: skip
    at = tl.cast(chunk, tl.int64) * planes + plane
    write_of_planes(partial + at, mean, exist)
    write_of_planes(partial + tl.cast(chunks, tl.int64) * planes + at, m2, exist)


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
    chunk_pixels,  # of every chunk but the first and the last
    eps,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,  # chunks, rounded up
    BLOCK_PLANES: tl.constexpr,
):
    plane = tl.program_id(0).to(tl.int64) * BLOCK_PLANES + tl.arange(0, BLOCK_PLANES)[None, :]
    exist = plane < planes
    chunk = tl.arange(0, BLOCK_CHUNKS)[:, None]
    inside = (chunk < chunks) & exist
    at = chunk.to(tl.int64) * planes + plane
    means = tl.load(partial + at, mask=inside, other=0.0)
    m2 = tl.load(partial + tl.cast(chunks, tl.int64) * planes + at, mask=inside, other=0.0)
    # Planes with partial results have tiles of their own, so that they begin as in start_of.
    start, lead = plane * pixels, plane * pixels % ALIGN
    if CHANNELS_LAST:
        start, lead = plane // channels * pixels * pixel_stride + plane % channels, plane * 0
    first = tl.maximum(chunk.to(tl.int64) * chunk_pixels - lead, 0)
    last = tl.minimum((chunk + 1).to(tl.int64) * chunk_pixels - lead, pixels)
    n = tl.maximum(last - first, 0).to(tl.float32)
    m = tl.sum(means * (n / tl.cast(pixels, tl.float32)), 0, keep_dims=True)
    d = tl.where(inside, means - m, 0.0)
    m2 = tl.sum(m2 + d * d * n, 0, keep_dims=True)
    m, r = finish(read(x + start, exist), m, m2, pixels, eps)
    tl.store(mean + plane, m, mask=exist)
    tl.store(rstd + plane, r, mask=exist)


@triton.jit
def _activated(x, norm, ACTIVATION: tl.constexpr):
    z = (x - norm.mean) * norm.factor + norm.shift
    if ACTIVATION == "relu":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "leaky_relu":
        z = tl.where(z < 0, z * norm.slope, z)
    return z


@triton.jit
def _make(
    images, at, residual_at, target, source, inside, norm,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, CACHE: tl.constexpr,
):  # fmt: skip
    """Write pixels of y: where they are, where in x and the residual they come from, which have a source and exist."""
    z = _activated(read(images.x + at, source), norm, ACTIVATION)
    if images.residual is not None:
        z += read(images.residual + residual_at, source)
    if PAD_MODE == "zero":
        z = tl.where(source, z, 0.0)
    tl.store(images.y + target, z.to(images.y.dtype.element_ty), mask=inside, cache_modifier=CACHE)


@triton.jit
def _make_flat(
    images, begin, end, planes, size, norm,
    ACTIVATION: tl.constexpr, CACHE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write tiles begin to end - 1 of planes that are one row of pixels each."""
    i = tl.arange(0, BLOCK)[:, None]
    for k in range(end - begin):
        tile = end - 1 - k
        at = planes.start + tl.cast(tile, tl.int64) * BLOCK * size.pixel_stride + i * size.pixel_stride
        if is_full(tile, planes.lead, planes.pixels, BLOCK):
            _make(images, at, at, at, planes.exist, planes.exist, norm, ACTIVATION, "none", CACHE)
        else:
            inside = inside_of(tile, planes.lead, planes.pixels, planes.exist, BLOCK)
            _make(images, at, at, at, inside, inside, norm, ACTIVATION, "none", CACHE)


@triton.jit
def _make_pixels(
    images, begin, end, image, planes, size, norm, ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr,
    CACHE: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Write a share of the planes of y, pixel by pixel."""
    row, block = (end - 1) // image.across - size.pad + tl.zeros([1, 1], tl.int32), (end - 1) % image.across
    STEP: tl.constexpr = BLOCK if PLACES == "wide" else 1
    first, last = tiles_of(begin, end, image, PLACES, VECTOR)
    for tile in range(first, last, STEP):
        i, j, inside = pixels_of(tile, row, block, begin, end, image, planes, PLACES, BLOCK, VECTOR, LARGE)
        target = ((i + size.pad) * image.width + (j + size.pad)) * size.pixel_stride
        source = inside & exists(i, size.height, PAD_MODE) & exists(j, size.width, PAD_MODE)
        i, j = source_of(i, size.height, PAD_MODE), source_of(j, size.width, PAD_MODE)
        at = (i * size.width + j) * size.pixel_stride
        residual_at = i * images.row_stride + j * images.column_stride
        _make(images, at, residual_at, target, source, inside, norm, ACTIVATION, PAD_MODE, CACHE)
        if PLACES == "rows":
            row, block = tl.where(block == 0, row - 1, row), tl.where(block == 0, image.across, block) - 1


@triton.jit
def _make_rows(
    images, group, begin, end, size, norm,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, CACHE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Write rows begin to end - 1 of plane number `group`, where whole groups of 16 bytes lie inside of the padding."""
    VECTOR: tl.constexpr = 128 // images.x.dtype.element_ty.primitive_bitwidth
    height, width, pad = size.height, size.width, size.pad
    out_width = width + 2 * pad
    for k in range(end - begin):
        row = end - 1 - k - pad
        source_row = source_of(row, height, PAD_MODE)
        target = (tl.cast(group, tl.int64) * (height + 2 * pad) + (row + pad)) * out_width + pad
        source = (tl.cast(group, tl.int64) * height + source_row) * width
        first, n = whole_groups(target, target + width, VECTOR)
        source += first * VECTOR - target
        for number in range(0, n, BLOCK_GROUPS):
            at = number + tl.arange(0, BLOCK_GROUPS)
            z = _activated(read_shifted(images.x, source, at, at < n), norm, ACTIVATION)
            if images.residual is not None:
                z += read_shifted(images.residual, source, at, at < n)
            if PAD_MODE == "zero":
                z = tl.where(exists(row, height, PAD_MODE), z, 0.0)
            place = images.y + ((first + at)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :])
            tl.store(place, z.to(images.y.dtype.element_ty), mask=(at < n)[:, None], cache_modifier=CACHE)


@triton.jit
def _moments(
    x, mean, rstd, plane, planes, pixel_stride, eps,
    STATISTICS: tl.constexpr, BLOCK_PIXELS: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation of planes, which are made and written if STATISTICS, else read."""
    if STATISTICS:
        x += planes.start
        first = read_of_planes(x + planes.lead, planes.exist)
        m, m2 = statistics(
            x, 0, planes.tiles, planes.lead, planes.pixels, pixel_stride, planes.exist, first, BLOCK_PIXELS, FOLD
        )  # fmt: skip
        m, r = finish(first, m, m2, planes.pixels, eps)
        write_of_planes(mean + plane, m, planes.exist)
        write_of_planes(rstd + plane, r, planes.exist)
    else:
        m = read_of_planes(mean + plane, planes.exist)
        r = read_of_planes(rstd + plane, planes.exist)
    return m, r


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
    batch_stride,  # of residual, as the next three; not where PLACES are flat or wide
    channel_stride,
    row_stride,
    column_stride,
    groups,  # of BLOCK_PLANES planes
    tiles,  # of output that a program makes, or rows where PLACES are wide
    across,  # tiles of a row, where PLACES are rows
    slope,  # of leaky_relu
    eps,
    pad,
    STATISTICS: tl.constexpr,  # whether this program has its planes to itself and makes their statistics
    ACTIVATION: tl.constexpr,
    PAD_MODE: tl.constexpr,  # "none" where pad is 0
    PLACES: tl.constexpr,  # see _places in instance_norm_act.py
    CHANNELS_LAST: tl.constexpr,
    WHOLE: tl.constexpr,  # whether BLOCK_PLANES divides the planes, or the channels
    LEADS: tl.constexpr,  # whether planes begin off the places that 16 bytes can be read from
    CACHE: tl.constexpr,  # how y is stored
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,  # of 16 bytes, where PLACES are wide
    BLOCK_EDGE: tl.constexpr,  # pixels that are gathered at a time
    LARGE: tl.constexpr,  # whether offsets in an image, or in the residual, take 64 bits
    FOLD: tl.constexpr,
):
    # The last programs and tiles come first: what the statistics have read last is still in the second cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    group = program % groups
    plane, image, channel, exist = planes_of_group(group, planes, channels, CHANNELS_LAST, BLOCK_PLANES, WHOLE)
    pixels = tl.cast(height, tl.int64) * width
    if LARGE:
        width = tl.cast(width, tl.int64)
        row_stride, column_stride = tl.cast(row_stride, tl.int64), tl.cast(column_stride, tl.int64)
    out_height, out_width = height + 2 * pad, width + 2 * pad
    out_pixels = tl.cast(out_height, tl.int64) * out_width
    start, lead = start_of(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, LEADS)
    tiles_of_plane = ((lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
    of_group = Planes(group, exist, start, lead, pixels, tiles_of_plane)
    scale, shift = affine(weight, bias, channel, exist)
    m, r = _moments(x, mean, rstd, plane, of_group, pixel_stride, eps, STATISTICS, BLOCK_PIXELS, FOLD)
    norm, size = Norm(m, r * scale, shift, slope), Size(height, width, pad, pixel_stride)

    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    BLOCK: tl.constexpr = BLOCK_PIXELS if PLACES == "flat" or PLACES == "rows" else BLOCK_EDGE
    padded = Image(out_height, out_width, out_pixels, pad, across, pad)
    begin = program // groups * tiles
    end = end_of(begin, tiles, of_group, padded, PLACES, BLOCK)
    images = _ForwardImages(x, residual, y, row_stride, column_stride)
    if PLACES == "flat":
        _make_flat(images, begin, end, of_group, size, norm, ACTIVATION, CACHE, BLOCK)
    else:
        if PLACES == "wide":
            _make_rows(images, group, begin, end, size, norm, ACTIVATION, PAD_MODE, CACHE, BLOCK_GROUPS)
        if CHANNELS_LAST:
            y += image * out_pixels * pixel_stride + channel
        else:
            y += plane * out_pixels
        if residual is not None:
            residual += image * batch_stride + channel.to(tl.int64) * channel_stride
        images = _ForwardImages(x + start + lead, residual, y, row_stride, column_stride)
        _make_pixels(
            images, begin, end, padded, of_group, size, norm, ACTIVATION, PAD_MODE, CACHE, PLACES, BLOCK, VECTOR, LARGE
        )  # fmt: skip
