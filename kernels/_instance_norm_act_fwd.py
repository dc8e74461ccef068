"""Forward kernels of instance_norm_act."""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels._instance_norm_act_tiles import (
    ALIGN,
    affine,
    edge_column,
    exists,
    finish,
    inside_of,
    is_full,
    planes_of_group,
    position,
    read,
    read_shifted,
    source_of,
    start_of,
    statistics,
    whole_groups,
)


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
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
    FOLD: tl.constexpr,
):
    group, chunk = tl.program_id(0) % groups, tl.program_id(0) // groups
    plane, image, channel, exist = planes_of_group(group, planes, channels, CHANNELS_LAST, BLOCK_PLANES, WHOLE)
    start, lead = start_of(group, plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, BLOCK_PLANES)
    x += start
    end = tl.minimum((chunk + 1) * tiles, (lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
    shift = read(x + lead + tl.zeros([1, BLOCK_PLANES], tl.int32), exist)
    mean, m2 = statistics(
        x, chunk * tiles, end, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS, FOLD
    )  # fmt: skip
    at = tl.cast(chunk, tl.int64) * planes + plane
    tl.store(partial + at, mean, mask=exist)
    tl.store(partial + tl.cast(chunks, tl.int64) * planes + at, m2, mask=exist)


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
def _activated(x, mean, factor, shift, slope, ACTIVATION: tl.constexpr):
    z = (x - mean) * factor + shift
    if ACTIVATION == "relu":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "leaky_relu":
        z = tl.where(z < 0, z * slope, z)
    return z


@triton.jit
def _make(
    x, residual, y, at, residual_at, target, source, inside, mean, factor, shift, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, CACHE: tl.constexpr,
):  # fmt: skip
    """Write pixels of y: where they are, where in x and the residual they come from, which have a source and exist."""
    z = _activated(read(x + at, source), mean, factor, shift, slope, ACTIVATION)
    if residual is not None:
        z += read(residual + residual_at, source)
    if PAD_MODE == "zero":
        z = tl.where(source, z, 0.0)
    tl.store(y + target, z.to(y.dtype.element_ty), mask=inside, cache_modifier=CACHE)


@triton.jit
def _make_pixels(
    x, residual, y, row, column, inside, height, width, pixel_stride, row_stride, column_stride, pad,
    mean, factor, shift, slope, ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, CACHE: tl.constexpr,
):  # fmt: skip
    """Write pixels of y in rows and columns that are counted from the first inside of the padding."""
    source = inside & exists(row, height, PAD_MODE) & exists(column, width, PAD_MODE)
    source_row, source_column = source_of(row, height, PAD_MODE), source_of(column, width, PAD_MODE)
    at = (source_row * width + source_column) * pixel_stride
    residual_at = source_row * row_stride + source_column * column_stride
    target = ((row + pad) * (width + 2 * pad) + (column + pad)) * pixel_stride
    _make(
        x, residual, y, at, residual_at, target, source, inside, mean, factor, shift, slope, ACTIVATION, PAD_MODE, CACHE
    )


@triton.jit
def _make_rows(
    x, residual, y, group, begin, end, height, width, pad, mean, factor, shift, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, CACHE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Write rows begin to end - 1 of plane number `group`, where whole groups of 16 bytes lie inside of the padding."""
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
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
            z = _activated(read_shifted(x, source, at, at < n), mean, factor, shift, slope, ACTIVATION)
            if residual is not None:
                z += read_shifted(residual, source, at, at < n)
            if PAD_MODE == "zero":
                z = tl.where(exists(row, height, PAD_MODE), z, 0.0)
            place = (first + at)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
            tl.store(y + place, z.to(y.dtype.element_ty), mask=(at < n)[:, None], cache_modifier=CACHE)


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
    CACHE: tl.constexpr,  # how y is stored
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,  # of 16 bytes, where PLACES are wide
    BLOCK_EDGE: tl.constexpr,  # pixels that are gathered at a time
    LARGE: tl.constexpr,  # whether offsets in an image take 64 bits
    FOLD: tl.constexpr,
):
    # The last programs and tiles come first: what the statistics have read last is still in the second cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    group = program % groups
    plane, image, channel, exist = planes_of_group(group, planes, channels, CHANNELS_LAST, BLOCK_PLANES, WHOLE)
    pixels = tl.cast(height, tl.int64) * width
    if LARGE:
        width = width.to(tl.int64)
    out_width = width + 2 * pad
    out_pixels = tl.cast(height + 2 * pad, tl.int64) * out_width
    start, lead = start_of(group, plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, BLOCK_PLANES)
    begin = program // groups * tiles
    scale, shift = affine(weight, bias, channel, exist)
    if STATISTICS:
        all_tiles = ((lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
        first_pixel = read(x + start + lead + tl.zeros([1, BLOCK_PLANES], tl.int32), exist)
        m, m2 = statistics(
            x + start, 0, all_tiles, lead, pixels, pixel_stride, exist, first_pixel, BLOCK_PIXELS, FOLD
        )  # fmt: skip
        m, r = finish(first_pixel, m, m2, pixels, eps)
        tl.store(mean + plane, m, mask=exist)
        tl.store(rstd + plane, r, mask=exist)
    else:
        m, r = tl.load(mean + plane, mask=exist, other=0.0), tl.load(rstd + plane, mask=exist, other=0.0)
    factor = r * scale

    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    if PLACES == "flat":
        end = tl.minimum(begin + tiles, ((lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32))
        for k in range(end - begin):
            tile = end - 1 - k
            at = start + tl.cast(tile, tl.int64) * BLOCK_PIXELS * pixel_stride + i * pixel_stride
            if is_full(tile, lead, pixels, BLOCK_PIXELS):
                _make(x, residual, y, at, at, at, exist, exist, m, factor, shift, slope, ACTIVATION, PAD_MODE, CACHE)
            else:
                inside = inside_of(tile, lead, pixels, exist, BLOCK_PIXELS)
                _make(x, residual, y, at, at, at, inside, inside, m, factor, shift, slope, ACTIVATION, PAD_MODE, CACHE)
    else:
        if PLACES == "wide":
            end = tl.minimum(begin + tiles, height + 2 * pad)
            _make_rows(
                x,
                residual,
                y,
                group,
                begin,
                end,
                height,
                width,
                pad,
                m,
                factor,
                shift,
                slope,
                ACTIVATION,
                PAD_MODE,
                CACHE,
                BLOCK_GROUPS,
            )
        if CHANNELS_LAST:
            x += start
            y += image * out_pixels * pixel_stride + channel
        else:
            x += start + lead
            y += plane * out_pixels
        if residual is not None:
            residual += image * batch_stride + channel.to(tl.int64) * channel_stride
        if PLACES == "rows":
            end = tl.minimum(begin + tiles, across * (height + 2 * pad))
            row, block = (end - 1) // across - pad + tl.zeros([1, 1], tl.int32), (end - 1) % across
            for _ in range(end - begin):
                column = block * BLOCK_PIXELS - pad + i
                _make_pixels(
                    x,
                    residual,
                    y,
                    row,
                    column,
                    (column < width + pad) & exist,
                    height,
                    width,
                    pixel_stride,
                    row_stride,
                    column_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    CACHE,
                )
                row, block = tl.where(block == 0, row - 1, row), tl.where(block == 0, across, block) - 1
        elif PLACES == "wide":
            VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
            edge = 2 * (pad + VECTOR - 1)
            phase = (group * out_pixels % VECTOR).to(tl.int32)
            for number in range(0, (end - begin) * edge, BLOCK_EDGE):
                row, j = position(number, edge, BLOCK_EDGE)
                row += begin
                column, outside = edge_column(j, phase + row * out_width, out_width, pad, VECTOR)
                _make_pixels(
                    x,
                    residual,
                    y,
                    row - pad,
                    column - pad,
                    (row < end) & outside,
                    height,
                    width,
                    pixel_stride,
                    row_stride,
                    column_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    CACHE,
                )
        else:
            end = tl.minimum(begin + tiles, ((out_pixels + BLOCK_EDGE - 1) // BLOCK_EDGE).to(tl.int32))
            for tile in range(begin, end):
                first = tile * BLOCK_EDGE
                if LARGE:
                    first = tl.cast(tile, tl.int64) * BLOCK_EDGE
                row, column = position(first, out_width, BLOCK_EDGE)
                _make_pixels(
                    x,
                    residual,
                    y,
                    row - pad,
                    column - pad,
                    (tl.arange(0, BLOCK_EDGE)[:, None] < out_pixels - first) & exist,
                    height,
                    width,
                    pixel_stride,
                    row_stride,
                    column_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    CACHE,
                )
