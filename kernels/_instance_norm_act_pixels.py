"""Pixels of padded images, for both directions of instance_norm_act: places, sources, groups that begin anywhere.

How a program goes through an image, `PLACES`, is explained in instance_norm_act.py. Its share of the image is units
begin to end - 1: tiles, or rows where places are wide. `tiles_of` and `pixels_of` give the pixels of that share tile by
tile, except for whole groups of 16 bytes, and except where places are flat.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Size(NamedTuple):
    """The size of planes, the padding around them, and the elements from one pixel to the next."""

    height: tl.tensor
    width: tl.tensor
    pad: tl.tensor
    pixel_stride: tl.tensor


class Image(NamedTuple):
    """An image that a program goes through: the padded one, or the source, of which no row or column is padding."""

    height: tl.tensor
    width: tl.tensor
    pixels: tl.tensor
    pad: tl.tensor  # rows or columns on each side that are padding
    across: tl.tensor  # tiles of a row, where places are rows
    margin: tl.tensor  # columns at both ends of a row that no whole group lies in, where places are wide


@triton.jit
def end_of(begin, units, planes, image, PLACES: tl.constexpr, BLOCK: tl.constexpr):
    """The end of a program's share of so many units."""
    if PLACES == "flat":
        all_units = planes.tiles
    elif PLACES == "rows":
        all_units = image.across * image.height
    elif PLACES == "wide":
        all_units = image.height
    else:
        all_units = ((image.pixels + BLOCK - 1) // BLOCK).to(tl.int32)
    return tl.minimum(begin + units, all_units)


@triton.jit
def tiles_of(begin, end, image, PLACES: tl.constexpr, VECTOR: tl.constexpr):
    """The first tile of a share, and the end of them. Where places are wide, they are counted in pixels."""
    if PLACES == "wide":
        return 0, (end - begin) * _edge(image.margin, VECTOR)
    elif PLACES == "rows":
        return 0, end - begin
    else:
        return begin, end


@triton.jit
def pixels_of(
    tile, row, block, begin, end, image, planes,
    PLACES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr, LARGE: tl.constexpr,
):  # fmt: skip
    """Row and column of a tile's pixels, counted from the first inside of the padding, and which of them exist.

    Where places are rows, the row and the number `block` in it tell which tile it is, because that spares divisions.
    """
    if PLACES == "rows":
        column = block * BLOCK - image.pad + tl.arange(0, BLOCK)[:, None]
        return row, column, (column < image.width - image.pad) & planes.exist
    elif PLACES == "wide":
        row, j = position(tile, _edge(image.margin, VECTOR), BLOCK)
        row += begin
        phase = (planes.group * image.pixels % VECTOR).to(tl.int32)  # of the plane's first pixel in 16 bytes
        column, outside = edge_column(j, phase + row * image.width, image.width, image.margin, VECTOR)
        return row - image.pad, column - image.pad, (row < end) & outside
    else:
        first = _first(tile, BLOCK, LARGE)
        row, column = position(first, image.width, BLOCK)
        inside = (tl.arange(0, BLOCK)[:, None] < image.pixels - first) & planes.exist
        return row - image.pad, column - image.pad, inside


@triton.jit
def number_of(tile, row, column, image, PLACES: tl.constexpr, BLOCK: tl.constexpr, LARGE: tl.constexpr):
    """The numbers of a tile's pixels in an image without padding.

    Where Triton can tell that they are adjacent, it makes accesses wide, if need be through shared memory.
    """
    if PLACES == "gather":
        return _first(tile, BLOCK, LARGE) + tl.arange(0, BLOCK)[:, None]
    else:
        return row * image.width + column


@triton.jit
def _first(tile, BLOCK: tl.constexpr, LARGE: tl.constexpr):
    """The first pixel of a tile, where pixels are gathered."""
    if LARGE:
        return tl.cast(tile, tl.int64) * BLOCK
    else:
        return tile * BLOCK


@triton.jit
def _edge(margin, VECTOR: tl.constexpr):
    """Columns of a row at most that are made pixel by pixel where places are wide."""
    return 2 * (margin + VECTOR - 1)


@triton.jit
def position(first, width, BLOCK_PIXELS: tl.constexpr):
    """Row and column [BLOCK_PIXELS, 1] of the pixels from number `first` on, in an image so wide.

    A multiplication by the reciprocal, corrected, takes the place of a division for every pixel.
    """
    i = tl.cast(first % width, tl.int32) + tl.arange(0, BLOCK_PIXELS)[:, None]
    rows = (i.to(tl.float32) * (1.0 / width)).to(tl.int32)
    column = i - rows * width
    rows += tl.where(column >= width, 1, 0) - tl.where(column < 0, 1, 0)
    return tl.cast(first // width, tl.int32) + rows, i - rows * width


@triton.jit
def source_of(at, size, PAD_MODE: tl.constexpr):
    """The row or column that row or column `at`, counted from the first inside, is a copy of."""
    if PAD_MODE == "reflect":
        return size - 1 - tl.abs(size - 1 - tl.abs(at))
    elif PAD_MODE == "none":
        return at
    else:
        return tl.minimum(tl.maximum(at, 0), size - 1)


@triton.jit
def exists(at, size, PAD_MODE: tl.constexpr):
    """Whether that row or column has a source at all."""
    if PAD_MODE == "zero":
        return (at >= 0) & (at < size)
    else:
        return at == at


@triton.jit
def _four_words(words, at, mask):
    """Four words of 16 bytes, each [groups]."""
    four = tl.load(words + at, mask=mask, other=0)
    even, odd = tl.split(tl.reshape(four, [four.shape[0], 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    return a, b, c, d


@triton.jit
def _elements(four, dtype: tl.constexpr):
    """The elements in words [groups, 4], as float32 [groups, 4 or 8]."""
    if dtype == tl.float32:
        return four.to(tl.float32, bitcast=True)
    else:
        if dtype == tl.bfloat16:
            low = (four << 16).to(tl.float32, bitcast=True)
            high = (four & 0xFFFF0000).to(tl.float32, bitcast=True)
        else:
            low = (four & 0xFFFF).to(tl.uint16).to(dtype, bitcast=True).to(tl.float32)
            high = (four >> 16).to(tl.uint16).to(dtype, bitcast=True).to(tl.float32)
        return tl.reshape(tl.join(low, high), [four.shape[0], 8])


@triton.jit
def read_shifted(x, first, group, mask):
    """Groups of 16 bytes of x that begin anywhere, as float32 [groups, elements]: from element `first` on.

    Two aligned accesses take the place of one for each element. What is not needed is shifted out of registers. x
    begins at a multiple of 16 bytes and has a multiple of 8 elements, so that no access leaves it.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    VECTOR: tl.constexpr = 128 // dtype.primitive_bitwidth
    words = x.to(tl.pointer_type(tl.uint32), bitcast=True)
    late = (first % VECTOR).to(tl.int32)
    at = (first // VECTOR * 4 + group.to(tl.int64) * 4)[:, None] + tl.arange(0, 4)[None, :]
    a0, a1, a2, a3 = _four_words(words, at, mask[:, None])
    b0, b1, b2, b3 = _four_words(words, at + 4, mask[:, None] & (late + tl.zeros([1, 1], tl.int32) > 0))
    late_words = late * 4 // VECTOR
    by_two, by_one = late_words >= 2, late_words % 2 == 1
    a0, a1, a2, a3 = (
        tl.where(by_two, a2, a0),
        tl.where(by_two, a3, a1),
        tl.where(by_two, b0, a2),
        tl.where(by_two, b1, a3),
    )
    b0, b1 = tl.where(by_two, b2, b0), tl.where(by_two, b3, b1)
    a0, a1, a2, a3 = (
        tl.where(by_one, a1, a0),
        tl.where(by_one, a2, a1),
        tl.where(by_one, a3, a2),
        tl.where(by_one, b0, a3),
    )
    if VECTOR == 8:
        b0 = tl.where(by_one, b1, b0)
        by_half = late % 2 == 1
        a0, a1 = tl.where(by_half, (a0 >> 16) | (a1 << 16), a0), tl.where(by_half, (a1 >> 16) | (a2 << 16), a1)
        a2, a3 = tl.where(by_half, (a2 >> 16) | (a3 << 16), a2), tl.where(by_half, (a3 >> 16) | (b0 << 16), a3)
    four = tl.reshape(tl.join(tl.join(a0, a2), tl.join(a1, a3)), [group.shape[0], 4])
    return _elements(four, dtype)


@triton.jit
def whole_groups(first, last, VECTOR: tl.constexpr):
    """The first of the aligned groups that lie in elements first to last - 1, and how many there are."""
    begin = (first + VECTOR - 1) // VECTOR
    return begin, tl.maximum(last // VECTOR - begin, 0).to(tl.int32)


@triton.jit
def edge_column(j, row_start, width, margin, VECTOR: tl.constexpr):
    """Of 2 (margin + VECTOR - 1) columns at the edges of a row, number j; and whether no whole group holds it.

    The groups are those of the elements from `margin` columns inside of the row on, which begins at row_start.
    """
    half = margin + VECTOR - 1
    column = tl.where(j < half, j, width - 2 * half + j)
    begin, groups = whole_groups(row_start + margin, row_start + width - margin, VECTOR)
    held = (row_start + column >= begin * VECTOR) & (row_start + column < (begin + groups) * VECTOR)
    return column, (held == 0)
