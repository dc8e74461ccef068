"""Backward kernel of instance_norm_act.

The sums over a plane are taken over the pixels of the padded output, each with the source that it was made of; the
gradients are made pixel by pixel of the source, which finds the borders that it went to.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels._instance_norm_act_tiles import (
    affine,
    edge_column,
    exists,
    fold,
    inside_of,
    is_full,
    planes_of_group,
    position,
    read,
    read_shifted,
    source_of,
    start_of,
    whole_groups,
)


@triton.jit
def _before_activation(g, x, mean, factor, shift, slope, ACTIVATION: tl.constexpr):
    """The gradient g of the activation's output, as that of its input."""
    if ACTIVATION == "relu":
        return tl.where((x - mean) * factor + shift <= 0, 0.0, g)
    elif ACTIVATION == "leaky_relu":
        return tl.where((x - mean) * factor + shift <= 0, g * slope, g)
    else:
        return g


@triton.jit
def _add_to_sums(sum0, sum1, g, x, mean, factor, shift, slope, ACTIVATION: tl.constexpr, FOLD: tl.constexpr):
    """Add a tile to the sums of dz and of dz (x - mean). What is not to count has no g, and an x that is finite."""
    dz = _before_activation(g, x, mean, factor, shift, slope, ACTIVATION)
    return sum0 + fold(dz, FOLD), sum1 + fold(dz * (x - mean), FOLD)


@triton.jit
def _sum_pixels(
    sum0, sum1, dy, x, row, column, inside, height, width, pixel_stride, pad, mean, factor, shift, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Add pixels of dy, in rows and columns that are counted from the first inside of the padding, to the sums."""
    inside = inside & exists(row, height, PAD_MODE) & exists(column, width, PAD_MODE)
    source_row, source_column = source_of(row, height, PAD_MODE), source_of(column, width, PAD_MODE)
    at = ((row + pad) * (width + 2 * pad) + (column + pad)) * pixel_stride
    source = (source_row * width + source_column) * pixel_stride
    g, value = read(dy + at, inside), read(x + source, inside)
    return _add_to_sums(sum0, sum1, g, value, mean, factor, shift, slope, ACTIVATION, FOLD)


@triton.jit
def _sum_rows(
    sum0, sum1, dy, x, group, begin, end, height, width, pad, mean, factor, shift, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Add rows begin to end - 1 of plane number `group`, where whole groups of 16 bytes lie inside of the padding."""
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    out_width = width + 2 * pad
    for padded_row in range(begin, end):
        row = padded_row - pad
        at = (tl.cast(group, tl.int64) * (height + 2 * pad) + padded_row) * out_width + pad
        source = (tl.cast(group, tl.int64) * height + source_of(row, height, PAD_MODE)) * width
        first, n = whole_groups(at, at + width, VECTOR)
        source += first * VECTOR - at
        n = tl.where(exists(row, height, PAD_MODE), n, 0)
        for number in range(0, n, BLOCK_GROUPS):
            i = number + tl.arange(0, BLOCK_GROUPS)
            place = (first + i)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
            g, value = read(dy + place, (i < n)[:, None]), read_shifted(x, source, i, i < n)
            sum0, sum1 = _add_to_sums(sum0, sum1, g, value, mean, factor, shift, slope, ACTIVATION, 1)
    return sum0, sum1


@triton.jit
def _fold_row(dy, row, inside, column, width, pixel_stride, pad, g):
    """Add to g what a row of dy, the padded gradient, holds for columns of the source, reflected ones too."""
    out_width = width + 2 * pad
    dy += row * out_width * pixel_stride
    g += read(dy + (column + pad) * pixel_stride, inside)
    g += read(dy + (pad - column) * pixel_stride, inside & (column >= 1) & (column <= pad))
    mirrored = 2 * (width - 1) - column
    right = inside & (column < width - 1) & (mirrored < width + pad)
    return g + read(dy + (mirrored + pad) * pixel_stride, right)


@triton.jit
def _folded(dy, row, column, inside, height, width, pixel_stride, pad, PAD_MODE: tl.constexpr):
    """The gradient of pixels of the source before padding; dy points to their planes."""
    if PAD_MODE == "reflect":
        g = _fold_row(dy, row + pad, inside, column, width, pixel_stride, pad, inside.to(tl.float32) * 0.0)
        g = _fold_row(dy, pad - row, inside & (row >= 1) & (row <= pad), column, width, pixel_stride, pad, g)
        mirrored = 2 * (height - 1) - row
        below = inside & (row < height - 1) & (mirrored < height + pad)
        g = _fold_row(dy, mirrored + pad, below, column, width, pixel_stride, pad, g)
    elif PAD_MODE == "replicate":
        g = inside.to(tl.float32) * 0.0
        for i in range(-pad, pad + 1):
            exist = inside & (source_of(row + i, height, PAD_MODE) == row)
            for j in range(-pad, pad + 1):
                same = exist & (source_of(column + j, width, PAD_MODE) == column)
                at = ((row + pad + i) * (width + 2 * pad) + (column + pad + j)) * pixel_stride
                g += read(dy + at, same)
    else:
        at = ((row + pad) * (width + 2 * pad) + (column + pad)) * pixel_stride
        g = read(dy + at, inside)
    return g


@triton.jit
def _make(
    dx, dresidual, x, g, at, inside, mean, factor, shift, mean0, mean1, slope, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Write gradients of pixels of the source from that before padding, g."""
    value = read(x + at, inside)
    dz = _before_activation(g, value, mean, factor, shift, slope, ACTIVATION)
    if dresidual is not None:
        tl.store(dresidual + at, g.to(dresidual.dtype.element_ty), mask=inside)
    d = (dz - mean0 - (value - mean) * mean1) * factor
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _folded_row(dy, group, row, first, height, width, pad, i, n, PAD_MODE: tl.constexpr):
    """The gradient before padding of groups i of n in a row of plane number `group`, from element `first` of it on."""
    start = (tl.cast(group, tl.int64) * (height + 2 * pad) + pad) * (width + 2 * pad) + pad + first
    g = read_shifted(dy, start + tl.cast(row, tl.int64) * (width + 2 * pad), i, i < n)
    if PAD_MODE != "zero":
        # Borders that this row went to, above and below: reflected, one of each; replicated, all of one side.
        above, below = (
            tl.where((row >= 1) & (row <= pad), 1, 0),
            tl.where((row < height - 1) & (row >= height - 1 - pad), 1, 0),
        )
        first_above, first_below = -row, 2 * (height - 1) - row
        if PAD_MODE == "replicate":
            above, below = tl.where(row == 0, pad, 0), tl.where(row == height - 1, pad, 0)
            first_above, first_below = -pad + 0 * row, height + 0 * row
        for k in range(above + below):
            border = tl.where(k < above, first_above + k, first_below + k - above)
            g += read_shifted(dy, start + tl.cast(border, tl.int64) * (width + 2 * pad), i, i < n)
    return g


@triton.jit
def _make_tile_of_row(
    dx, dresidual, dy, x, row, first, exist, height, width, pixel_stride, pad, mean, factor, shift, mean0, mean1, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Write gradients of pixels of a row of the source, from column `first` on."""
    column = first + tl.arange(0, BLOCK_PIXELS)[:, None]
    inside = (column < width) & exist
    at = ((row + pad) * (width + 2 * pad) + (column + pad)) * pixel_stride
    if PAD_MODE == "zero":
        g = read(dy + at, inside)
    elif (
        (row > pad) & (row < height - 1 - pad) & (first > pad) & (first + BLOCK_PIXELS < width - pad)
    ):  # no border was made of it
        g = read(dy + at, inside)
    else:
        g = _folded(dy, row + tl.zeros([1, 1], tl.int32), column, inside, height, width, pixel_stride, pad, PAD_MODE)
    at = (row * width + column) * pixel_stride
    _make(dx, dresidual, x, g, at, inside, mean, factor, shift, mean0, mean1, slope, ACTIVATION)


@triton.jit
def _make_rows(
    dx, dresidual, dy, x, group, begin, end, height, width, pad, margin, mean, factor, shift, mean0, mean1, slope,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Write gradients of rows begin to end - 1 of plane number `group`, where whole groups lie inside of the margin."""
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    for k in range(end - begin):
        row = end - 1 - k
        start = (tl.cast(group, tl.int64) * height + row) * width
        first, n = whole_groups(start + margin, start + width - margin, VECTOR)
        for number in range(0, n, BLOCK_GROUPS):
            i = number + tl.arange(0, BLOCK_GROUPS)
            g = _folded_row(dy, group, row, first * VECTOR - start, height, width, pad, i, n, PAD_MODE)
            at = (first + i)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
            inside = (i < n)[:, None]
            _make(dx, dresidual, x, g, at, inside, mean, factor, shift, mean0, mean1, slope, ACTIVATION)


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
    sum_tiles,  # of dy whose sums a program makes, or rows where PLACES are wide
    sum_across,  # tiles of a row of dy, where PLACES are rows
    tiles,  # of dx that a program makes, or rows
    across,  # tiles of a row of dx
    slope,  # of leaky_relu
    pad,
    SUMS: tl.constexpr,  # whether this program makes sums, of a chunk of its planes or of all
    GRADIENT: tl.constexpr,  # whether it makes the gradients, for which it must know the sums of all
    ACTIVATION: tl.constexpr,
    PAD_MODE: tl.constexpr,  # "none" where pad is 0
    PLACES: tl.constexpr,  # see _places in instance_norm_act.py
    CHANNELS_LAST: tl.constexpr,
    WHOLE: tl.constexpr,  # whether BLOCK_PLANES divides the planes, or the channels
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_PLANES: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,  # of 16 bytes, where PLACES are wide
    BLOCK_EDGE: tl.constexpr,  # pixels that are gathered at a time
    LARGE: tl.constexpr,  # whether offsets in an image take 64 bits
    FOLD: tl.constexpr,
):
    program = tl.program_id(0)
    if not SUMS:
        # The last programs come first: what the sums have read last is still in the second cache.
        program = tl.num_programs(0) - 1 - program
    group, chunk = program % groups, program // groups
    plane, image, channel, exist = planes_of_group(group, planes, channels, CHANNELS_LAST, BLOCK_PLANES, WHOLE)
    pixels = tl.cast(height, tl.int64) * width
    if LARGE:
        width = width.to(tl.int64)
    out_width = width + 2 * pad
    out_pixels = tl.cast(height + 2 * pad, tl.int64) * out_width
    start, lead = start_of(group, plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, BLOCK_PLANES)
    m, r = tl.load(mean + plane, mask=exist, other=0.0), tl.load(rstd + plane, mask=exist, other=0.0)
    scale, shift = affine(weight, bias, channel, exist)
    factor = r * scale
    all_tiles = ((lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
    i = tl.arange(0, BLOCK_PIXELS)[:, None]
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    # Where the planes of the group begin; tiles that are flat begin where an aligned access can.
    if CHANNELS_LAST:
        planes_at, dy_planes = start, dy + image * out_pixels * pixel_stride + channel
    else:
        planes_at, dy_planes = plane * pixels, dy + plane * out_pixels
    x_planes = x + planes_at

    dz_sum, product_sum = sums, sums + tl.cast(chunks, tl.int64) * planes
    if SUMS:
        sum0 = tl.full([BLOCK_PIXELS // FOLD, BLOCK_PLANES], 0.0, tl.float32)
        sum1 = tl.full([BLOCK_PIXELS // FOLD, BLOCK_PLANES], 0.0, tl.float32)
        begin = chunk * sum_tiles
        if PLACES == "flat":
            end = tl.minimum(begin + sum_tiles, all_tiles)
            for tile in range(begin, end):
                at = start + tl.cast(tile, tl.int64) * BLOCK_PIXELS * pixel_stride + i * pixel_stride
                if is_full(tile, lead, pixels, BLOCK_PIXELS):
                    g, value = read(dy + at, exist), read(x + at, exist)
                else:
                    inside = inside_of(tile, lead, pixels, exist, BLOCK_PIXELS)
                    g, value = read(dy + at, inside), read(x + at, inside)
                sum0, sum1 = _add_to_sums(sum0, sum1, g, value, m, factor, shift, slope, ACTIVATION, FOLD)
        elif PLACES == "rows":
            end = tl.minimum(begin + sum_tiles, sum_across * (height + 2 * pad))
            row, block = begin // sum_across - pad + tl.zeros([1, 1], tl.int32), begin % sum_across
            for _ in range(end - begin):
                column = block * BLOCK_PIXELS - pad + i
                sum0, sum1 = _sum_pixels(
                    sum0,
                    sum1,
                    dy_planes,
                    x_planes,
                    row,
                    column,
                    (column < width + pad) & exist,
                    height,
                    width,
                    pixel_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    FOLD,
                )
                block += 1
                row, block = tl.where(block == sum_across, row + 1, row), tl.where(block == sum_across, 0, block)
        elif PLACES == "wide":
            end = tl.minimum(begin + sum_tiles, height + 2 * pad)
            wide0 = tl.full([BLOCK_GROUPS, VECTOR], 0.0, tl.float32)
            wide1 = tl.full([BLOCK_GROUPS, VECTOR], 0.0, tl.float32)
            wide0, wide1 = _sum_rows(
                wide0,
                wide1,
                dy,
                x,
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
                BLOCK_GROUPS,
            )
            sum0 = tl.full([BLOCK_EDGE, 1], 0.0, tl.float32)
            sum1 = tl.full([BLOCK_EDGE, 1], 0.0, tl.float32)
            edge = 2 * (pad + VECTOR - 1)
            phase = (group * out_pixels % VECTOR).to(tl.int32)
            for number in range(0, (end - begin) * edge, BLOCK_EDGE):
                row, j = position(number, edge, BLOCK_EDGE)
                row += begin
                column, outside = edge_column(j, phase + row * out_width, out_width, pad, VECTOR)
                sum0, sum1 = _sum_pixels(
                    sum0,
                    sum1,
                    dy_planes,
                    x_planes,
                    row - pad,
                    column - pad,
                    (row < end) & outside,
                    height,
                    width,
                    pixel_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    1,
                )
            sum0 = tl.sum(sum0, 0, keep_dims=True) + tl.sum(wide0)
            sum1 = tl.sum(sum1, 0, keep_dims=True) + tl.sum(wide1)
        else:
            sum0 = tl.full([BLOCK_EDGE, BLOCK_PLANES], 0.0, tl.float32)
            sum1 = tl.full([BLOCK_EDGE, BLOCK_PLANES], 0.0, tl.float32)
            end = tl.minimum(begin + sum_tiles, ((out_pixels + BLOCK_EDGE - 1) // BLOCK_EDGE).to(tl.int32))
            for tile in range(begin, end):
                first = tile * BLOCK_EDGE
                if LARGE:
                    first = tl.cast(tile, tl.int64) * BLOCK_EDGE
                row, column = position(first, out_width, BLOCK_EDGE)
                sum0, sum1 = _sum_pixels(
                    sum0,
                    sum1,
                    dy_planes,
                    x_planes,
                    row - pad,
                    column - pad,
                    (tl.arange(0, BLOCK_EDGE)[:, None] < out_pixels - first) & exist,
                    height,
                    width,
                    pixel_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    1,
                )
        sum0, sum1 = tl.sum(sum0, 0, keep_dims=True), tl.sum(sum1, 0, keep_dims=True) * r
        slot = tl.cast(chunk, tl.int64) * planes + plane
        tl.store(dz_sum + slot, sum0, mask=exist)
        tl.store(product_sum + slot, sum1, mask=exist)
    else:
        sum0 = tl.load(dz_sum + plane, mask=exist, other=0.0)
        sum1 = tl.load(product_sum + plane, mask=exist, other=0.0)

    if GRADIENT:
        mean0, mean1 = sum0 / tl.cast(pixels, tl.float32), sum1 * r / tl.cast(pixels, tl.float32)
        begin = chunk * tiles
        dx_planes = dx + planes_at
        dresidual_planes = dresidual
        if dresidual is not None:
            dresidual_planes = dresidual + planes_at
        if PLACES == "flat":
            end = tl.minimum(begin + tiles, all_tiles)
            for k in range(end - begin):
                tile = end - 1 - k
                at = start + tl.cast(tile, tl.int64) * BLOCK_PIXELS * pixel_stride + i * pixel_stride
                if is_full(tile, lead, pixels, BLOCK_PIXELS):
                    _make(
                        dx,
                        dresidual,
                        x,
                        read(dy + at, exist),
                        at,
                        exist,
                        m,
                        factor,
                        shift,
                        mean0,
                        mean1,
                        slope,
                        ACTIVATION,
                    )
                else:
                    inside = inside_of(tile, lead, pixels, exist, BLOCK_PIXELS)
                    _make(
                        dx,
                        dresidual,
                        x,
                        read(dy + at, inside),
                        at,
                        inside,
                        m,
                        factor,
                        shift,
                        mean0,
                        mean1,
                        slope,
                        ACTIVATION,
                    )
        elif PLACES == "rows":
            end = tl.minimum(begin + tiles, across * height)
            row, block = (end - 1) // across, (end - 1) % across
            for _ in range(end - begin):
                _make_tile_of_row(
                    dx_planes,
                    dresidual_planes,
                    dy_planes,
                    x_planes,
                    row,
                    block * BLOCK_PIXELS,
                    exist,
                    height,
                    width,
                    pixel_stride,
                    pad,
                    m,
                    factor,
                    shift,
                    mean0,
                    mean1,
                    slope,
                    ACTIVATION,
                    PAD_MODE,
                    BLOCK_PIXELS,
                )
                row, block = tl.where(block == 0, row - 1, row), tl.where(block == 0, across, block) - 1
        elif PLACES == "wide":
            end = tl.minimum(begin + tiles, height)
            margin = 0 if PAD_MODE == "zero" else pad + 1
            _make_rows(
                dx,
                dresidual,
                dy,
                x,
                group,
                begin,
                end,
                height,
                width,
                pad,
                margin,
                m,
                factor,
                shift,
                mean0,
                mean1,
                slope,
                ACTIVATION,
                PAD_MODE,
                BLOCK_GROUPS,
            )
            edge = 2 * (margin + VECTOR - 1)
            phase = (group * pixels % VECTOR).to(tl.int32)
            for number in range(0, (end - begin) * edge, BLOCK_EDGE):
                row, j = position(number, edge, BLOCK_EDGE)
                row += begin
                column, outside = edge_column(j, phase + row * width, width, margin, VECTOR)
                inside = (row < end) & outside
                g = _folded(dy_planes, row, column, inside, height, width, pixel_stride, pad, PAD_MODE)
                at = row * width + column
                _make(
                    dx_planes,
                    dresidual_planes,
                    x_planes,
                    g,
                    at,
                    inside,
                    m,
                    factor,
                    shift,
                    mean0,
                    mean1,
                    slope,
                    ACTIVATION,
                )
        else:
            end = tl.minimum(begin + tiles, ((pixels + BLOCK_EDGE - 1) // BLOCK_EDGE).to(tl.int32))
            for tile in range(begin, end):
                first = tile * BLOCK_EDGE
                if LARGE:
                    first = tl.cast(tile, tl.int64) * BLOCK_EDGE
                row, column = position(first, width, BLOCK_EDGE)
                j = tl.arange(0, BLOCK_EDGE)[:, None]
                inside = (j < pixels - first) & exist
                g = _folded(dy_planes, row, column, inside, height, width, pixel_stride, pad, PAD_MODE)
                _make(
                    dx_planes,
                    dresidual_planes,
                    x_planes,
                    g,
                    (first + j) * pixel_stride,
                    inside,
                    m,
                    factor,
                    shift,
                    mean0,
                    mean1,
                    slope,
                    ACTIVATION,
                )
