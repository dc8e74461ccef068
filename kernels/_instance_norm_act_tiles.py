"""What both directions of instance_norm_act share: tiles of planes, statistics, padded places, shifted rows.

A tile is BLOCK_PIXELS pixels of BLOCK_PLANES planes. In contiguous images its pixels are adjacent, in channels_last
images its planes are: the channels of one image.
"""

from __future__ import annotations

import triton
import triton.language as tl

ALIGN = tl.constexpr(8)  # elements: 16 bytes of the narrowest dtype


@triton.jit
def planes_of_group(
    group, planes, channels, CHANNELS_LAST: tl.constexpr, BLOCK_PLANES: tl.constexpr, WHOLE: tl.constexpr
):
    """The planes of a group, [1, BLOCK_PLANES]: their number, image, channel, and which of them exist: all if WHOLE."""
    lane = tl.arange(0, BLOCK_PLANES)[None, :]
    if CHANNELS_LAST:
        groups = (channels + BLOCK_PLANES - 1) // BLOCK_PLANES
        image = tl.cast(group // groups, tl.int64)
        channel = group % groups * BLOCK_PLANES + lane
        plane, image, exist = image * channels + channel, image + 0 * channel, channel < channels
    else:
        plane = tl.cast(group, tl.int64) * BLOCK_PLANES + lane
        image, channel, exist = plane // channels, plane % channels, plane < planes
    if WHOLE:
        exist = tl.full([1, BLOCK_PLANES], True, tl.int1)
    return plane, image, channel, exist


@triton.jit
def start_of(
    group, plane, image, channel, pixels, pixel_stride, CHANNELS_LAST: tl.constexpr, BLOCK_PLANES: tl.constexpr
):
    """Offset of the first pixel of planes in a dense image of so many pixels, and how far a tile begins before it.

    One plane alone begins anywhere: its tiles begin where an aligned access can.
    """
    if CHANNELS_LAST:
        return image * pixels * pixel_stride + channel, 0
    elif BLOCK_PLANES == 1:
        start = tl.cast(group, tl.int64) * pixels
        return start // ALIGN * ALIGN, (start % ALIGN).to(tl.int32)
    else:
        return plane * pixels, 0


@triton.jit
def count(begin, end, lead, pixels, BLOCK_PIXELS: tl.constexpr):
    """How many pixels of the plane tiles begin to end - 1 hold, at least 1, as float."""
    first = tl.maximum(tl.cast(begin, tl.int64) * BLOCK_PIXELS - lead, 0)
    last = tl.minimum(tl.cast(end, tl.int64) * BLOCK_PIXELS - lead, pixels)
    return tl.maximum(last - first, 1).to(tl.float32)


@triton.jit
def read(address, mask):
    """Load as float32, 0 where it is masked."""
    if mask is None:
        return tl.load(address).to(tl.float32)
    else:
        return tl.load(address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def inside_of(tile, lead, pixels, exist, BLOCK_PIXELS: tl.constexpr):
    """Which elements of a tile lie in their plane."""
    at = tl.cast(tile, tl.int64) * BLOCK_PIXELS - lead + tl.arange(0, BLOCK_PIXELS)[:, None]
    return (at >= 0) & (at < pixels) & exist


@triton.jit
def is_full(tile, lead, pixels, BLOCK_PIXELS: tl.constexpr):
    """Whether all pixels of a tile lie in its planes, so that it needs no mask, by which accesses become narrow."""
    first = tl.cast(tile, tl.int64) * BLOCK_PIXELS - lead
    return (first >= 0) & (first + BLOCK_PIXELS <= pixels)


@triton.jit
def fold(x, FOLD: tl.constexpr):
    """x [n, planes] as sums [n / FOLD, planes], of what one thread holds."""
    if FOLD == 1:
        return x
    else:
        return tl.sum(tl.reshape(x, [FOLD, x.shape[0] // FOLD, x.shape[1]]), 0)


@triton.jit
def _deviations(x, tile, lead, pixels, pixel_stride, exist, pivot, BLOCK_PIXELS: tl.constexpr):
    """A tile less the pivots of its planes, 0 outside of the planes."""
    x += tl.cast(tile, tl.int64) * BLOCK_PIXELS * pixel_stride
    at = tl.arange(0, BLOCK_PIXELS)[:, None] * pixel_stride
    if is_full(tile, lead, pixels, BLOCK_PIXELS):
        d = read(x + at, exist) - pivot
    else:
        inside = inside_of(tile, lead, pixels, exist, BLOCK_PIXELS)
        d = tl.where(inside, read(x + at, inside) - pivot, 0.0)
    return d


@triton.jit
def statistics(
    x, begin, end, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS: tl.constexpr, FOLD: tl.constexpr
):  # fmt: skip
    """Means, less `shift`, and sums of squared deviations of tiles begin to end - 1, by plane.

    The pivot is the mean of the first tile. However far it is from the mean of all tiles, the squares about it add up
    to at most so many times the true sum of squares as there are tiles, plus 1: little cancels.
    """
    mean = tl.sum(_deviations(x, begin, lead, pixels, pixel_stride, exist, shift, BLOCK_PIXELS), 0, keep_dims=True)
    pivot = shift + mean / count(begin, begin + 1, lead, pixels, BLOCK_PIXELS)
    sums = tl.full([BLOCK_PIXELS // FOLD, exist.shape[1]], 0.0, tl.float32)
    squares = tl.full([BLOCK_PIXELS // FOLD, exist.shape[1]], 0.0, tl.float32)
    for tile in range(begin, end):
        d = _deviations(x, tile, lead, pixels, pixel_stride, exist, pivot, BLOCK_PIXELS)
        sums += fold(d, FOLD)
        squares += fold(d * d, FOLD)
    total = tl.sum(sums, 0, keep_dims=True)
    mean = total / count(begin, end, lead, pixels, BLOCK_PIXELS)
    m2 = tl.sum(squares, 0, keep_dims=True) - total * mean
    return pivot - shift + mean, tl.where(m2 < 0, 0.0, m2)


@triton.jit
def finish(shift, mean, m2, pixels, eps):
    """Mean and 1 / standard deviation from those of `statistics`."""
    return shift + mean, 1.0 / tl.sqrt_rn(m2 / tl.cast(pixels, tl.float32) + eps)


@triton.jit
def affine(weight, bias, channel, exist):
    """Scale and shift of planes."""
    scale, shift = tl.full(channel.shape, 1.0, tl.float32), tl.full(channel.shape, 0.0, tl.float32)
    if weight is not None:
        scale = tl.load(weight + channel, mask=exist, other=0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, mask=exist, other=0.0).to(tl.float32)
    return scale, shift


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
