"""Kernels of avg_pyramid for channels_last images whose pixels begin anywhere, such as those of 39 channels.

A row is a run of elements, pixels after channels, which is read and written by aligned groups of 16 bytes. Rows are
added as they come. What lies one pixel to the left and to the right is then taken out of the sum of the rows, which is
in shared memory for that (`tl.gather`). A program has CELLS pixels of the quarter level side by side, and the pixels of
the other levels that they consist of, and walks down a band of rows.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _inside(o, size):
    """How many pixels of the window at output position o lie in [0, size), as float. It is 1 if there is no window."""
    return tl.maximum(tl.minimum(2 * o + 2, size) - tl.maximum(2 * o - 1, 0), 1).to(tl.float32)


@triton.jit
def _band(rows, bands, blocks):
    """Image, first row of cells and number among the blocks side by side of this program."""
    program = tl.program_id(0)
    band = program // blocks
    return (band // bands).to(tl.int64), (band % bands) * rows, program % blocks


@triton.jit
def _read_row(image, row, height, length, at):
    """Elements `at` of a row of an image as float32, 0 outside of it."""
    inside = (at >= 0) & (at < tl.where((row >= 0) & (row < height), length, 0))
    return tl.load(image + row.to(tl.int64) * length + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _write_row(image, row, height, length, at, owned, value):
    inside = owned & (at < tl.where(row < height, length, 0))
    tl.store(image + row.to(tl.int64) * length + at, value.to(image.dtype.element_ty), mask=inside)


@triton.jit
def _three(sums, centre, CHANNELS: tl.constexpr):
    """Sums at three neighbouring pixels, of which `centre` says where the second is."""
    return tl.gather(sums, centre - CHANNELS, 0) + tl.gather(sums, centre, 0) + tl.gather(sums, centre + CHANNELS, 0)


@triton.jit
def _within(centre, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Places of a run of BLOCK elements that have neighbours, for `_three`; those beyond it are of no cell."""
    return tl.minimum(tl.maximum(centre, CHANNELS), BLOCK - 1 - CHANNELS)


@triton.jit
def _pixel(j, MARGIN: tl.constexpr, CHANNELS: tl.constexpr):
    """Pixel and channel of element j of a run that begins MARGIN elements before pixel 0."""
    BEFORE: tl.constexpr = MARGIN // CHANNELS + 1
    shifted = j - MARGIN + BEFORE * CHANNELS
    return shifted // CHANNELS - BEFORE, shifted % CHANNELS


@triton.jit
def avg_pyramid_fwd_runs_kernel(
    x,  # [B, H, W, C]
    half,  # [B, ceil(H/2), ceil(W/2), C]
    quarter,  # [B, ceil(H/4), ceil(W/4), C] or None
    height,
    width,
    half_width,
    quarter_width,
    blocks,  # of CELLS cells side by side
    bands,  # of an image
    rows,  # of cells in a band
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,  # a multiple of 8, so that runs begin at 16 bytes
    MARGIN: tl.constexpr,  # elements of x before those of the cells, at least 3 pixels, a multiple of 8
    HALF_MARGIN: tl.constexpr,  # of the half level, at least 1 pixel
    BLOCK: tl.constexpr,  # elements of x
    HALF_BLOCK: tl.constexpr,
    QUARTER_BLOCK: tl.constexpr,
):
    image, top, block = _band(rows, bands, blocks)
    half_height, quarter_height = (height + 1) // 2, (height + 3) // 4
    length, half_length, quarter_length = width * CHANNELS, half_width * CHANNELS, quarter_width * CHANNELS
    x += image * height * length
    half += image * half_height * half_length
    start = block * (CELLS * CHANNELS)
    at = 4 * start - MARGIN + tl.arange(0, BLOCK)
    j = tl.arange(0, HALF_BLOCK)
    half_at = 2 * start - HALF_MARGIN + j
    owned = (j >= HALF_MARGIN) & (j < HALF_MARGIN + 2 * CELLS * CHANNELS)
    column, channel = _pixel(j, HALF_MARGIN, CHANNELS)
    centre = _within(2 * column * CHANNELS + channel + MARGIN, CHANNELS, BLOCK)
    weight = 1.0 / _inside(column + 2 * block * CELLS, width)
    k = tl.arange(0, QUARTER_BLOCK)
    half_centre = _within(2 * (k // CHANNELS) * CHANNELS + k % CHANNELS + HALF_MARGIN, CHANNELS, HALF_BLOCK)
    quarter_weight = 1.0 / _inside(k // CHANNELS + block * CELLS, half_width)
    dtype: tl.constexpr = half.dtype.element_ty

    # A pixel of the half level counts in the quarter as it is stored, rounded. Before the first column all sums are 0.
    row = 4 * top - 3
    sums = _read_row(x, row, height, length, at) + _read_row(x, row + 1, height, length, at)
    last = _read_row(x, row + 2, height, length, at)
    above = _three(sums + last, centre, CHANNELS) * (weight / _inside(2 * top - 1, height))
    above = tl.where(half_at < tl.where(top > 0, half_length, 0), above, 0.0).to(dtype).to(tl.float32)
    for i in range(rows):
        pair = above
        for second in tl.static_range(2):
            o = 2 * (top + i) + second
            sums = last + _read_row(x, 2 * o, height, length, at)
            last = _read_row(x, 2 * o + 1, height, length, at)
            mean = _three(sums + last, centre, CHANNELS) * (weight / _inside(o, height))
            above = tl.where(half_at < tl.where(o < half_height, half_length, 0), mean, 0.0).to(dtype).to(tl.float32)
            _write_row(half, o, half_height, half_length, half_at, owned, above)
            pair += above
        if quarter is not None:
            q = top + i
            mean = _three(pair, half_centre, CHANNELS) * (quarter_weight / _inside(q, half_height))
            target = quarter + image * quarter_height * quarter_length
            _write_row(target, q, quarter_height, quarter_length, start + k, k < CELLS * CHANNELS, mean)


@triton.jit
def _two(gradients, place, odd, CHANNELS: tl.constexpr):
    """What pixels of the finer level get from a row of gradients: from one window, or from two where they are odd."""
    return tl.gather(gradients, place, 0) + tl.where(odd, tl.gather(gradients, place + CHANNELS, 0), 0.0)


@triton.jit
def _place(i, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Of elements i of the finer level: where in a run of BLOCK gradients their first window is, and which are odd."""
    place = (i // CHANNELS // 2) * CHANNELS + i % CHANNELS
    return tl.minimum(place, BLOCK - 1 - CHANNELS), i // CHANNELS % 2 == 1


@triton.jit
def avg_pyramid_bwd_runs_kernel(
    dhalf,  # [B, ceil(H/2), ceil(W/2), C] or None
    dquarter,  # [B, ceil(H/4), ceil(W/4), C] or None
    dx,  # [B, H, W, C]
    height,
    width,
    half_width,
    quarter_width,
    blocks,  # of CELLS cells side by side
    bands,  # of an image
    rows,  # of cells in a band
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,  # a multiple of 8, so that runs begin at 16 bytes
    BLOCK: tl.constexpr,  # elements of dx
    HALF_BLOCK: tl.constexpr,
    QUARTER_BLOCK: tl.constexpr,
):
    image, top, block = _band(rows, bands, blocks)
    half_height, quarter_height = (height + 1) // 2, (height + 3) // 4
    length, half_length, quarter_length = width * CHANNELS, half_width * CHANNELS, quarter_width * CHANNELS
    dx += image * height * length
    start = block * (CELLS * CHANNELS)
    i, j, k = tl.arange(0, BLOCK), tl.arange(0, HALF_BLOCK), tl.arange(0, QUARTER_BLOCK)
    at, half_at, owned = 4 * start + i, 2 * start + j, i < 4 * CELLS * CHANNELS
    place, odd = _place(i, CHANNELS, HALF_BLOCK)
    half_place, half_odd = _place(j, CHANNELS, QUARTER_BLOCK)
    # There are no gradients beyond the last column.
    weight = tl.where(half_at < half_length, 1.0 / _inside(j // CHANNELS + 2 * block * CELLS, width), 0.0)
    quarter_weight = 1.0 / _inside(k // CHANNELS + block * CELLS, half_width)
    above = tl.zeros([HALF_BLOCK], tl.float32)
    below = above
    if dhalf is not None:
        dhalf += image * half_height * half_length
    if dquarter is not None:
        dquarter += image * quarter_height * quarter_length
        row = _read_row(dquarter, top, quarter_height, quarter_length, start + k)
        above = _two(row * (quarter_weight / _inside(top, half_height)), half_place, half_odd, CHANNELS)

    # A row of the half level's gradients, spread over the columns of the image.
    gradient = above
    if dhalf is not None:
        gradient += _read_row(dhalf, 2 * top, half_height, half_length, half_at)
    spread = _two(gradient * (weight / _inside(2 * top, height)), place, odd, CHANNELS)
    for step in range(rows):
        q = top + step
        if dquarter is not None:
            row = _read_row(dquarter, q + 1, quarter_height, quarter_length, start + k)
            below = _two(row * (quarter_weight / _inside(q + 1, half_height)), half_place, half_odd, CHANNELS)
        for second in tl.static_range(2):
            o = 2 * q + second + 1
            gradient = above + below if second == 0 else below
            if dhalf is not None:
                gradient += _read_row(dhalf, o, half_height, half_length, half_at)
            gradient *= tl.where(o < half_height, weight / _inside(o, height), 0.0)
            following = _two(gradient, place, odd, CHANNELS)
            _write_row(dx, 2 * o - 2, height, length, at, owned, spread)
            _write_row(dx, 2 * o - 1, height, length, at, owned, spread + following)
            spread = following
        above = below
