"""Backward kernel of instance_norm_act.

The sums over a plane are in a module of their own. The gradients are made pixel by pixel of the source, which finds the
borders that it went to.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from hdgan.kernels._instance_norm_act_pixels import (
    Image,
    Size,
    end_of,
    number_of,
    pixels_of,
    read_shifted,
    source_of,
    tiles_of,
    whole_groups,
)
from hdgan.kernels._instance_norm_act_sums import before_activation, sums_of
from hdgan.kernels._instance_norm_act_tiles import (
    Norm,
    Planes,
    affine,
    inside_of,
    is_full,
    planes_of_group,
    read,
    read_of_planes,
    start_of,
    write_of_planes,
)


class _BackwardImages(NamedTuple):
    """What the gradients are made of, and where they go: images, or the planes of one program in them."""

    dy: tl.tensor
    x: tl.tensor
    dx: tl.tensor
    dresidual: tl.tensor  # or None
    mean_dz: tl.tensor  # over each plane
    mean_product: tl.tensor  # of dz (x - mean), divided by the variance


@triton.jit
def _fold_row(dy, row, inside, column, size, g):
    """Add to g what a row of dy, the padded gradient, holds for columns of the source, reflected ones too."""
    width, pad, pixel_stride = size.width, size.pad, size.pixel_stride
    dy += row * (width + 2 * pad) * pixel_stride
    g += read(dy + (column + pad) * pixel_stride, inside)
    g += read(dy + (pad - column) * pixel_stride, inside & (column >= 1) & (column <= pad))
    mirrored = 2 * (width - 1) - column
    right = inside & (column < width - 1) & (mirrored < width + pad)
    return g + read(dy + (mirrored + pad) * pixel_stride, right)


@triton.jit
def _folded(dy, row, column, inside, size, PAD_MODE: tl.constexpr):
    """The gradient of pixels of the source before padding; dy points to their planes."""
    height, width, pad, pixel_stride = size.height, size.width, size.pad, size.pixel_stride
    if PAD_MODE == "reflect":
        g = _fold_row(dy, row + pad, inside, column, size, inside.to(tl.float32) * 0.0)
        g = _fold_row(dy, pad - row, inside & (row >= 1) & (row <= pad), column, size, g)
        mirrored = 2 * (height - 1) - row
        below = inside & (row < height - 1) & (mirrored < height + pad)
        g = _fold_row(dy, mirrored + pad, below, column, size, g)
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
def _make(images, g, at, inside, norm, ACTIVATION: tl.constexpr):
    """Write gradients of pixels of the source from that before padding, g."""
    value = read(images.x + at, inside)
    dz = before_activation(g, value, norm, ACTIVATION)
    if images.dresidual is not None:
        tl.store(images.dresidual + at, g.to(images.dresidual.dtype.element_ty), mask=inside)
    d = (dz - images.mean_dz - (value - norm.mean) * images.mean_product) * norm.factor
    tl.store(images.dx + at, d.to(images.dx.dtype.element_ty), mask=inside)


@triton.jit
def _make_flat(images, begin, end, planes, size, norm, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Write gradients of tiles begin to end - 1 of planes that are one row of pixels each."""
    i = tl.arange(0, BLOCK)[:, None]
    for k in range(end - begin):
        tile = end - 1 - k
        at = planes.start + tl.cast(tile, tl.int64) * BLOCK * size.pixel_stride + i * size.pixel_stride
        if is_full(tile, planes.lead, planes.pixels, BLOCK):
            _make(images, read(images.dy + at, planes.exist), at, planes.exist, norm, ACTIVATION)
        else:
            inside = inside_of(tile, planes.lead, planes.pixels, planes.exist, BLOCK)
            _make(images, read(images.dy + at, inside), at, inside, norm, ACTIVATION)


@triton.jit
def _folded_row(dy, group, row, first, size, i, n, PAD_MODE: tl.constexpr):
    """The gradient before padding of groups i of n in a row of plane number `group`, from element `first` of it on."""
    height, width, pad = size.height, size.width, size.pad
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
def _gradient_of_tile(dy, row, column, first, inside, size, PAD_MODE: tl.constexpr, BLOCK: tl.constexpr):
    """The gradient before padding of a tile of a row, from column `first` on."""
    height, width, pad = size.height, size.width, size.pad
    at = ((row + pad) * (width + 2 * pad) + (column + pad)) * size.pixel_stride
    if PAD_MODE == "zero":
        g = read(dy + at, inside)
    elif (
        (row > pad) & (row < height - 1 - pad) & (first > pad) & (first + BLOCK < width - pad)
    ):  # no border was made of it
        g = read(dy + at, inside)
    else:
        g = _folded(dy, row + tl.zeros([1, 1], tl.int32), column, inside, size, PAD_MODE)
    return g


@triton.jit
def _make_pixels(
    images, begin, end, image, planes, size, norm, ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr,
    PLACES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Write gradients of a share of the planes, pixel by pixel."""
    row, block = (end - 1) // image.across, (end - 1) % image.across
    STEP: tl.constexpr = BLOCK if PLACES == "wide" else 1
    first, last = tiles_of(begin, end, image, PLACES, VECTOR)
    for tile in range(first, last, STEP):
        i, j, inside = pixels_of(tile, row, block, begin, end, image, planes, PLACES, BLOCK, VECTOR, LARGE)
        if PLACES == "rows":
            g = _gradient_of_tile(images.dy, row, j, block * BLOCK, inside, size, PAD_MODE, BLOCK)
        else:
            g = _folded(images.dy, i, j, inside, size, PAD_MODE)
        at = number_of(tile, i, j, image, PLACES, BLOCK, LARGE) * size.pixel_stride
        _make(images, g, at, inside, norm, ACTIVATION)
        if PLACES == "rows":
            row, block = tl.where(block == 0, row - 1, row), tl.where(block == 0, image.across, block) - 1


@triton.jit
def _make_rows(
    images, group, begin, end, margin, size, norm,
    ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr, BLOCK_GROUPS: tl.constexpr,
):  # fmt: skip
    """Write gradients of rows begin to end - 1 of plane number `group`, where whole groups lie inside of the margin."""
    VECTOR: tl.constexpr = 128 // images.x.dtype.element_ty.primitive_bitwidth
    for k in range(end - begin):
        row = end - 1 - k
        start = (tl.cast(group, tl.int64) * size.height + row) * size.width
        first, n = whole_groups(start + margin, start + size.width - margin, VECTOR)
        for number in range(0, n, BLOCK_GROUPS):
            i = number + tl.arange(0, BLOCK_GROUPS)
            g = _folded_row(images.dy, group, row, first * VECTOR - start, size, i, n, PAD_MODE)
            at = (first + i)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
            _make(images, g, at, (i < n)[:, None], norm, ACTIVATION)


@triton.jit
def _make_gradients(
    images, of_planes, begin, units, planes, image, size, norm, ACTIVATION: tl.constexpr, PAD_MODE: tl.constexpr,
    PLACES: tl.constexpr, BLOCK: tl.constexpr, BLOCK_GROUPS: tl.constexpr, VECTOR: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Write gradients of a share of so many units."""
    end = end_of(begin, units, planes, image, PLACES, BLOCK)
    if PLACES == "flat":
        _make_flat(images, begin, end, planes, size, norm, ACTIVATION, BLOCK)
    else:
        if PLACES == "wide":
            _make_rows(
                images, planes.group, begin, end, image.margin, size, norm, ACTIVATION, PAD_MODE, BLOCK_GROUPS
            )  # fmt: skip
        _make_pixels(
            of_planes, begin, end, image, planes, size, norm, ACTIVATION, PAD_MODE, PLACES, BLOCK, VECTOR, LARGE
        )  # fmt: skip


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
    LEADS: tl.constexpr,  # whether planes begin off the places that 16 bytes can be read from
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
        width = tl.cast(width, tl.int64)
    out_height, out_width = height + 2 * pad, width + 2 * pad
    out_pixels = tl.cast(out_height, tl.int64) * out_width
    start, lead = start_of(plane, image, channel, pixels, pixel_stride, CHANNELS_LAST, LEADS)
    m, r = read_of_planes(mean + plane, exist), read_of_planes(rstd + plane, exist)
    scale, shift = affine(weight, bias, channel, exist)
    norm, size = Norm(m, r * scale, shift, slope), Size(height, width, pad, pixel_stride)
    tiles_of_plane = ((lead + pixels + BLOCK_PIXELS - 1) // BLOCK_PIXELS).to(tl.int32)
    of_group = Planes(group, exist, start, lead, pixels, tiles_of_plane)
    VECTOR: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
    BLOCK: tl.constexpr = BLOCK_PIXELS if PLACES == "flat" or PLACES == "rows" else BLOCK_EDGE
    # Where the planes of the group begin; tiles that are flat begin where an aligned access can.
    if CHANNELS_LAST:
        at, dy_planes = start, dy + image * out_pixels * pixel_stride + channel
    else:
        at, dy_planes = plane * pixels, dy + plane * out_pixels

    dz_sum, product_sum = sums, sums + tl.cast(chunks, tl.int64) * planes
    if SUMS:
        padded = Image(out_height, out_width, out_pixels, pad, sum_across, pad)
        sum0, sum1 = sums_of(
            dy, x, dy_planes, x + at, chunk * sum_tiles, sum_tiles, of_group, padded, size, norm,
            ACTIVATION, PAD_MODE, PLACES, BLOCK, BLOCK_GROUPS, VECTOR, LARGE, FOLD,
        )  # fmt: skip
        sum1 *= r
        slot = tl.cast(chunk, tl.int64) * planes + plane
        write_of_planes(dz_sum + slot, sum0, exist)
        write_of_planes(product_sum + slot, sum1, exist)
    else:
        sum0, sum1 = read_of_planes(dz_sum + plane, exist), read_of_planes(product_sum + plane, exist)
    if GRADIENT:
        mean0, mean1 = sum0 / tl.cast(pixels, tl.float32), sum1 * r / tl.cast(pixels, tl.float32)
        margin = 0 if PAD_MODE == "zero" else pad + 1
        source = Image(height, width, pixels, 0, across, margin)
        images = _BackwardImages(dy, x, dx, dresidual, mean0, mean1)
        if dresidual is not None:
            dresidual += at
        of_planes = _BackwardImages(dy_planes, x + at, dx + at, dresidual, mean0, mean1)
        _make_gradients(
            images, of_planes, chunk * tiles, tiles, of_group, source, size, norm,
            ACTIVATION, PAD_MODE, PLACES, BLOCK, BLOCK_GROUPS, VECTOR, LARGE,
        )  # fmt: skip
