"""avg_pyramid: 3x3 average pooling with stride 2 and padding 1 that leaves the padding out of its count; two levels.

A cell is a pixel of the quarter level: 2x2 pixels of the half level and 4x4 of the image. A program takes a block of
cells side by side and walks down, so that it reads each row of the image once; what a row of cells shares with the next
stays in registers. In contiguous images the columns of the cells are adjacent: they are read and written as one block,
taken apart and put together in registers. In channels_last images each column of the cells is an access of its own,
along the channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

CELLS = 512  # of one program
MAX_ROWS = 16  # of cells that a program walks down


@triton.jit
def _tile(planes, height, pixel, blocks, bands, rows, P: tl.constexpr, N: tl.constexpr):
    """What this program works on.

    Returns planes [P, 1]; the first element of the block; cells [N] and the channels in them; first and last + 1 row.
    """
    program = tl.program_id(0)
    element = program % blocks * N
    cell = element + tl.arange(0, N)
    top = program // blocks % bands * rows
    plane = (program // blocks // bands).to(tl.int64) * P + tl.arange(0, P)[:, None]
    return plane, element, cell // pixel, cell % pixel, top, tl.minimum(top + rows, (height + 3) // 4)


@triton.jit
def _inside(o, size):
    """Pixels of the window at output position o that lie in [0, size); 1 where there is no such window."""
    return tl.maximum(tl.minimum(2 * o + 2, size) - tl.maximum(2 * o - 1, 0), 1)


@triton.jit
def _load(image, row, column, channel, height, width, pixel, valid):
    """A row of planes, `image` their addresses [P, 1]; 0 outside. Result [P, N], for columns and channels [N]."""
    end = tl.where((row >= 0) & (row < height), width, 0)
    inside = (column >= 0) & (column < end)
    at = tl.cast(row, tl.int64) * width * pixel + (column * pixel + channel)[None, :]
    return tl.load(image + at, mask=valid & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def _load_2(image, row, element, cell, channel, height, width, pixel, valid, PLANAR: tl.constexpr):
    """The two columns of cells in a row of the half level."""
    if PLANAR:
        N: tl.constexpr = cell.shape[0]
        block = _load(image, row, 2 * element + tl.arange(0, 2 * N), 0, height, width, 1, valid)
        a, b = tl.split(tl.reshape(block, [image.shape[0], N, 2]))
    else:
        a = _load(image, row, 2 * cell, channel, height, width, pixel, valid)
        b = _load(image, row, 2 * cell + 1, channel, height, width, pixel, valid)
    return a, b


@triton.jit
def _load_4(image, row, element, cell, channel, height, width, pixel, valid, PLANAR: tl.constexpr):
    """The four columns of cells in a row of the image."""
    if PLANAR:
        N: tl.constexpr = cell.shape[0]
        block = _load(image, row, 4 * element + tl.arange(0, 4 * N), 0, height, width, 1, valid)
        even, odd = tl.split(tl.reshape(block, [image.shape[0], N, 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
    else:
        a = _load(image, row, 4 * cell, channel, height, width, pixel, valid)
        b = _load(image, row, 4 * cell + 1, channel, height, width, pixel, valid)
        c = _load(image, row, 4 * cell + 2, channel, height, width, pixel, valid)
        d = _load(image, row, 4 * cell + 3, channel, height, width, pixel, valid)
    return a, b, c, d


@triton.jit
def _store(image, row, column, channel, height, width, pixel, valid, value):
    inside = valid & (column < tl.where(row < height, width, 0))[None, :]
    at = tl.cast(row, tl.int64) * width * pixel + (column * pixel + channel)[None, :]
    tl.store(image + at, value.to(image.dtype.element_ty), mask=inside)


@triton.jit
def _store_2(image, row, element, cell, channel, height, width, pixel, valid, PLANAR: tl.constexpr, a, b):
    """The reverse of _load_2."""
    if PLANAR:
        N: tl.constexpr = cell.shape[0]
        block = tl.reshape(tl.join(a, b), [image.shape[0], 2 * N])
        _store(image, row, 2 * element + tl.arange(0, 2 * N), 0, height, width, 1, valid, block)
    else:
        _store(image, row, 2 * cell, channel, height, width, pixel, valid, a)
        _store(image, row, 2 * cell + 1, channel, height, width, pixel, valid, b)


@triton.jit
def _store_4(image, row, element, cell, channel, height, width, pixel, valid, PLANAR: tl.constexpr, a, b, c, d):
    """The reverse of _load_4."""
    if PLANAR:
        N: tl.constexpr = cell.shape[0]
        block = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [image.shape[0], 4 * N])
        _store(image, row, 4 * element + tl.arange(0, 4 * N), 0, height, width, 1, valid, block)
    else:
        _store(image, row, 4 * cell, channel, height, width, pixel, valid, a)
        _store(image, row, 4 * cell + 1, channel, height, width, pixel, valid, b)
        _store(image, row, 4 * cell + 2, channel, height, width, pixel, valid, c)
        _store(image, row, 4 * cell + 3, channel, height, width, pixel, valid, d)


@triton.jit
def _row_sums(x, row, element, cell, channel, height, width, pixel, valid, PLANAR: tl.constexpr):
    """Sums of a row of the image in the windows of the half level's columns 2 cell - 1, 2 cell and 2 cell + 1."""
    _, b, c, d = _load_4(x, row, element - 1, cell - 1, channel, height, width, pixel, valid, PLANAR)
    e, f, g, h = _load_4(x, row, element, cell, channel, height, width, pixel, valid, PLANAR)
    return b + c + d, d + e + f, f + g + h


@triton.jit
def _mean(a, b, c, row, column, height, width, like):
    """Pixels of the half level from the sums of their three rows, rounded as they are stored; 0 outside."""
    exists = (column >= 0) & (2 * column < tl.where((row >= 0) & (2 * row < height), width, 0))
    count = (_inside(row, height) * _inside(column, width)).to(tl.float32)[None, :]
    mean = tl.div_rn(a + b + c, tl.broadcast_to(count, a.shape))
    return tl.where(exists[None, :], mean.to(like.dtype.element_ty).to(tl.float32), 0.0)


@triton.jit
def avg_pyramid_fwd_kernel(
    x,  # [B, C, H, W], seen as [planes, height, width, pixel]
    half,  # [B, C, ceil(H/2), ceil(W/2)]
    quarter,  # [B, C, ceil(H/4), ceil(W/4)] or None
    planes,
    height,
    width,
    pixel,  # elements of a pixel
    blocks,  # of N cells side by side
    bands,  # of rows of cells
    rows,  # of a band
    PLANAR: tl.constexpr,  # pixel == 1
    P: tl.constexpr,  # planes of a program
    N: tl.constexpr,  # cells of a program in a row, times their channels
):
    plane, element, cell, channel, top, bottom = _tile(planes, height, pixel, blocks, bands, rows, P, N)
    valid = plane < planes
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    x += plane * height * width * pixel
    half += plane * half_height * half_width * pixel
    left, middle, right = 2 * cell - 1, 2 * cell, 2 * cell + 1

    # The half level's row above the first row of cells, and the last row of the image that it takes in.
    a0, a1, a2 = _row_sums(x, 4 * top - 3, element, cell, channel, height, width, pixel, valid, PLANAR)
    b0, b1, b2 = _row_sums(x, 4 * top - 2, element, cell, channel, height, width, pixel, valid, PLANAR)
    c0, c1, c2 = _row_sums(x, 4 * top - 1, element, cell, channel, height, width, pixel, valid, PLANAR)
    sums = _mean(a0, b0, c0, 2 * top - 1, left, height, width, half)
    sums += _mean(a1, b1, c1, 2 * top - 1, middle, height, width, half)
    sums += _mean(a2, b2, c2, 2 * top - 1, right, height, width, half)
    for q in range(top, bottom):
        a0, a1, a2 = _row_sums(x, 4 * q, element, cell, channel, height, width, pixel, valid, PLANAR)
        b0, b1, b2 = _row_sums(x, 4 * q + 1, element, cell, channel, height, width, pixel, valid, PLANAR)
        upper0 = _mean(c0, a0, b0, 2 * q, left, height, width, half)
        upper1 = _mean(c1, a1, b1, 2 * q, middle, height, width, half)
        upper2 = _mean(c2, a2, b2, 2 * q, right, height, width, half)
        _store_2(half, 2 * q, element, cell, channel, half_height, half_width, pixel, valid, PLANAR, upper1, upper2)
        a0, a1, a2 = _row_sums(x, 4 * q + 2, element, cell, channel, height, width, pixel, valid, PLANAR)
        c0, c1, c2 = _row_sums(x, 4 * q + 3, element, cell, channel, height, width, pixel, valid, PLANAR)
        lower0 = _mean(b0, a0, c0, 2 * q + 1, left, height, width, half)
        lower1 = _mean(b1, a1, c1, 2 * q + 1, middle, height, width, half)
        lower2 = _mean(b2, a2, c2, 2 * q + 1, right, height, width, half)
        _store_2(half, 2 * q + 1, element, cell, channel, half_height, half_width, pixel, valid, PLANAR, lower1, lower2)
        lower = lower0 + lower1 + lower2
        if quarter is not None:
            count = (_inside(q, half_height) * _inside(cell, half_width)).to(tl.float32)[None, :]
            sums += upper0 + upper1 + upper2 + lower
            mean = tl.div_rn(sums, tl.broadcast_to(count, sums.shape))
            quarter_height, quarter_width = (half_height + 1) // 2, (half_width + 1) // 2
            target = quarter + plane * quarter_height * quarter_width * pixel
            _store(target, q, cell, channel, quarter_height, quarter_width, pixel, valid, mean)
        sums = lower


@triton.jit
def _share(dquarter, row, cell, channel, half_height, half_width, pixel, valid):
    """What each pixel in the windows of quarter-level pixels gets of their gradient."""
    height, width = (half_height + 1) // 2, (half_width + 1) // 2
    count = (_inside(row, half_height) * _inside(cell, half_width)).to(tl.float32)
    return _load(dquarter, row, cell, channel, height, width, pixel, valid) / count[None, :]


@triton.jit
def _weighted(d, row, column, height, width):
    """What each pixel in the windows of half-level pixels gets of their gradient d."""
    exists = 2 * column < tl.where(2 * row < height, width, 0)
    count = (_inside(row, height) * _inside(column, width)).to(tl.float32)
    return tl.where(exists[None, :], d / count[None, :], 0.0)


@triton.jit
def _half_row(
    dhalf,
    row,
    upper0,
    upper1,
    lower0,
    lower1,
    element,
    cell,
    channel,
    height,
    width,
    pixel,
    valid,
    PLANAR: tl.constexpr,
):
    """Columns 2 cell, 2 cell + 1, 2 cell + 2 of a row of the half level, weighted.

    The quarter level adds upper0 + lower0 at cell and upper1 + lower1 at cell + 1.
    """
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    d2 = upper1 + lower1
    d0 = upper0 + lower0
    d1 = d0 + d2
    if dhalf is not None:
        a, b = _load_2(dhalf, row, element, cell, channel, half_height, half_width, pixel, valid, PLANAR)
        c, _ = _load_2(dhalf, row, element + 1, cell + 1, channel, half_height, half_width, pixel, valid, PLANAR)
        d0, d1, d2 = d0 + a, d1 + b, d2 + c
    d0 = _weighted(d0, row, 2 * cell, height, width)
    d1 = _weighted(d1, row, 2 * cell + 1, height, width)
    d2 = _weighted(d2, row, 2 * cell + 2, height, width)
    return d0, d1, d2


@triton.jit
def avg_pyramid_bwd_kernel(
    dhalf,  # [B, C, ceil(H/2), ceil(W/2)] or None
    dquarter,  # [B, C, ceil(H/4), ceil(W/4)] or None
    dx,  # [B, C, H, W], seen as [planes, height, width, pixel]
    planes,
    height,
    width,
    pixel,  # elements of a pixel
    blocks,  # of N cells side by side
    bands,  # of rows of cells
    rows,  # of a band
    PLANAR: tl.constexpr,  # pixel == 1
    P: tl.constexpr,  # planes of a program
    N: tl.constexpr,  # cells of a program in a row, times their channels
):
    plane, element, cell, channel, top, bottom = _tile(planes, height, pixel, blocks, bands, rows, P, N)
    valid = plane < planes
    half_height, half_width = (height + 1) // 2, (width + 1) // 2
    dx += plane * height * width * pixel
    if dhalf is not None:
        dhalf += plane * half_height * half_width * pixel
    upper0 = tl.full([P, N], 0.0, tl.float32)
    upper1, lower0, lower1, none = upper0, upper0, upper0, upper0
    if dquarter is not None:
        dquarter += plane * ((half_height + 1) // 2) * ((half_width + 1) // 2) * pixel
        upper0 = _share(dquarter, top, cell, channel, half_height, half_width, pixel, valid)
        upper1 = _share(dquarter, top, cell + 1, channel, half_height, half_width, pixel, valid)
    u0, u1, u2 = _half_row(
        dhalf, 2 * top, upper0, upper1, none, none, element, cell, channel, height, width, pixel, valid, PLANAR
    )
    for q in range(top, bottom):
        if dquarter is not None:
            lower0 = _share(dquarter, q + 1, cell, channel, half_height, half_width, pixel, valid)
            lower1 = _share(dquarter, q + 1, cell + 1, channel, half_height, half_width, pixel, valid)
        row = 2 * q + 1
        m0, m1, m2 = _half_row(
            dhalf, row, upper0, upper1, lower0, lower1, element, cell, channel, height, width, pixel, valid, PLANAR
        )
        row = 2 * q + 2
        l0, l1, l2 = _half_row(
            dhalf, row, none, none, lower0, lower1, element, cell, channel, height, width, pixel, valid, PLANAR
        )
        for k in tl.static_range(4):
            if k == 0:
                a, b, c = u0, u1, u2
            elif k == 1:
                a, b, c = u0 + m0, u1 + m1, u2 + m2
            elif k == 2:
                a, b, c = m0, m1, m2
            else:
                a, b, c = m0 + l0, m1 + l1, m2 + l2
            row = 4 * q + k
            _store_4(dx, row, element, cell, channel, height, width, pixel, valid, PLANAR, a, a + b, b, b + c)
        u0, u1, u2, upper0, upper1 = l0, l1, l2, lower0, lower1


def _grid(x: Tensor) -> tuple[tuple[int], tuple[int, ...], dict[str, int]]:
    """Grid, sizes and constants of either kernel for an image x [B, C, H, W]."""
    planes, pixel = common.planes_of(x)
    height, width = x.shape[2:]
    across, down = triton.cdiv(width, 4) * pixel, triton.cdiv(height, 4)
    n = common.block_of(across, CELLS)
    p = common.block_of(planes, CELLS // n)
    blocks, groups = triton.cdiv(across, n), triton.cdiv(planes, p)
    rows = max(1, min(MAX_ROWS, down * blocks * groups // (4 * common.processors(x))))
    bands = triton.cdiv(down, rows)
    sizes = (planes, height, width, pixel, blocks, bands, rows)
    return (blocks * bands * groups,), sizes, {"PLANAR": pixel == 1, "P": p, "N": n}


def avg_pyramid_fwd(x: Tensor, half: Tensor, quarter: Tensor | None) -> None:
    """x [B, C, H, W] -> half [B, C, ceil(H/2), ceil(W/2)] and, unless it is None, quarter: the half of half."""
    grid, sizes, constants = _grid(x)
    avg_pyramid_fwd_kernel[grid](x, half, quarter, *sizes, **constants)


def avg_pyramid_bwd(dhalf: Tensor | None, dquarter: Tensor | None, dx: Tensor) -> None:
    """The gradients of both, of which either may be missing -> dx [B, C, H, W]."""
    grid, sizes, constants = _grid(dx)
    avg_pyramid_bwd_kernel[grid](dhalf, dquarter, dx, *sizes, **constants)
