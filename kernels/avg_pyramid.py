"""avg_pyramid: 3x3 average pooling with stride 2 and padding 1 that leaves the padding out of its count; two levels.

A cell is a pixel of the quarter level: 2x2 pixels of the half level and 4x4 of the image. A program takes a block of
cells side by side and walks down a band of rows, so that it reads each row of the image once. What a row of cells
shares with the next one stays in registers. Small images leave room for several bands at once, of one plane or of more.

In contiguous images the columns of the cells are adjacent: they are read and written as one block, taken apart and put
together in registers. In channels_last images each column of the cells is an access of its own, along the channels. If
their number is odd, so that pixels begin anywhere, the kernels of _avg_pyramid_runs.py do the work.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common
from hdgan.kernels._avg_pyramid_runs import avg_pyramid_bwd_runs_kernel, avg_pyramid_fwd_runs_kernel

RUN = 4096  # elements of a row of one program at most, where rows are runs
Launch = tuple[tuple[int], tuple[int, ...], dict[str, Any]]  # grid, sizes, constants
CELLS = 256  # of one program side by side, bands and channels counted
ROWS = (2, 16)  # of cells in a band, at least and at most


@triton.jit
def _bands(planes, height, blocks, bands, rows, BLOCK_BANDS: tl.constexpr):
    """The bands [BLOCK_BANDS, 1] of this program: planes, first rows, height of the image; and its block of cells."""
    program = tl.program_id(0)
    band = (program // blocks).to(tl.int64) * BLOCK_BANDS + tl.arange(0, BLOCK_BANDS)[:, None]
    plane = band // bands
    return plane, (band % bands).to(tl.int32) * rows, tl.where(plane < planes, height, 0), program % blocks


@triton.jit
def _inside(o, size):
    """How many pixels of the window at output position o lie in [0, size), as float. It is 1 if there is no window."""
    return tl.maximum(tl.minimum(2 * o + 2, size) - tl.maximum(2 * o - 1, 0), 1).to(tl.float32)


@triton.jit
def _row_sums(x, row, height, column, width, pixel_stride, PLANAR: tl.constexpr):
    """Sums of a row of the image in the windows of the half level's columns 2 cell - 1, 2 cell and 2 cell + 1.

    x points to `column` of row 0: the four columns of all cells, [bands, 4 cells], if PLANAR, else the first columns of
    the cells, [bands, cells].
    """
    inside = (row >= 0) & (row < height)
    x += row.to(tl.int64) * width * pixel_stride
    before = inside & (column >= 4)
    if PLANAR:
        left = tl.load(x - 4, mask=before & (column < width + 4), other=0.0).to(tl.float32)
        right = tl.load(x, mask=inside & (column < width), other=0.0).to(tl.float32)
        even, odd = tl.split(tl.reshape(left, [left.shape[0], left.shape[1] // 4, 2, 2]))
        _, c = tl.split(even)
        b, d = tl.split(odd)
        even, odd = tl.split(tl.reshape(right, [right.shape[0], right.shape[1] // 4, 2, 2]))
        e, g = tl.split(even)
        f, h = tl.split(odd)
    else:
        b = tl.load(x - 3 * pixel_stride, mask=before & (column < width + 3), other=0.0).to(tl.float32)
        c = tl.load(x - 2 * pixel_stride, mask=before & (column < width + 2), other=0.0).to(tl.float32)
        d = tl.load(x - pixel_stride, mask=before & (column < width + 1), other=0.0).to(tl.float32)
        e = tl.load(x, mask=inside & (column < width), other=0.0).to(tl.float32)
        f = tl.load(x + pixel_stride, mask=inside & (column < width - 1), other=0.0).to(tl.float32)
        g = tl.load(x + 2 * pixel_stride, mask=inside & (column < width - 2), other=0.0).to(tl.float32)
        h = tl.load(x + 3 * pixel_stride, mask=inside & (column < width - 3), other=0.0).to(tl.float32)
    return b + c + d, d + e + f, f + g + h


@triton.jit
def _store_2(half, row, height, column, width, pixel_stride, PLANAR: tl.constexpr, a, b):
    """Write both columns of the cells in a row of the half level; half and column as x and column in _row_sums."""
    half += row.to(tl.int64) * width * pixel_stride
    inside = (row < height) & (column < width)
    dtype: tl.constexpr = half.dtype.element_ty
    if PLANAR:
        tl.store(half, tl.reshape(tl.join(a, b), half.shape).to(dtype), mask=inside)
    else:
        tl.store(half, a.to(dtype), mask=inside)
        tl.store(half + pixel_stride, b.to(dtype), mask=inside & (column < width - 1))


@triton.jit
def _store_4(dx, row, height, column, width, pixel_stride, PLANAR: tl.constexpr, a, b, c, d):
    """Write the four columns of the cells in a row of the image; dx and column as x and column in _row_sums."""
    dx += row.to(tl.int64) * width * pixel_stride
    inside = (row < height) & (column < width)
    dtype: tl.constexpr = dx.dtype.element_ty
    if PLANAR:
        tl.store(dx, tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), dx.shape).to(dtype), mask=inside)
    else:
        tl.store(dx, a.to(dtype), mask=inside)
        tl.store(dx + pixel_stride, b.to(dtype), mask=inside & (column < width - 1))
        tl.store(dx + 2 * pixel_stride, c.to(dtype), mask=inside & (column < width - 2))
        tl.store(dx + 3 * pixel_stride, d.to(dtype), mask=inside & (column < width - 3))


@triton.jit
def avg_pyramid_fwd_kernel(
    x,  # [B, C, H, W], seen as [planes, height, width, elements of a pixel]
    half,  # [B, C, ceil(H/2), ceil(W/2)]
    quarter,  # [B, C, ceil(H/4), ceil(W/4)] or None
    planes,
    height,
    width,
    half_width,  # ceil(width / 2), for what Triton knows of its divisibility
    pixel_stride,  # elements from one pixel to the next
    blocks,  # of BLOCK_CELLS cells side by side
    bands,  # of a plane
    rows,  # of cells in a band
    PLANAR: tl.constexpr,  # pixel_stride == 1
    BLOCK_BANDS: tl.constexpr,  # bands of a program
    BLOCK_CELLS: tl.constexpr,  # cells of a program side by side, times their channels
):
    plane, top, lane_height, block = _bands(planes, height, blocks, bands, rows, BLOCK_BANDS)
    half_height, quarter_height = (lane_height + 1) // 2, (lane_height + 3) // 4
    quarter_width = (half_width + 1) // 2
    element = block * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)[None, :]
    cell = element // pixel_stride
    if PLANAR:
        column = 4 * block * BLOCK_CELLS + tl.arange(0, 4 * BLOCK_CELLS)[None, :]
        half_column = 2 * block * BLOCK_CELLS + tl.arange(0, 2 * BLOCK_CELLS)[None, :]
        x += plane * height * width + column
        half += plane * ((height + 1) // 2) * half_width + half_column
    else:
        column, half_column, channel = 4 * cell, 2 * cell, element % pixel_stride
        x += plane * height * width * pixel_stride + (column * pixel_stride + channel)
        half += plane * ((height + 1) // 2) * half_width * pixel_stride + (half_column * pixel_stride + channel)
    count0, count1, count2 = _inside(2 * cell - 1, width), _inside(2 * cell, width), _inside(2 * cell + 1, width)
    has_right = 2 * cell + 1 < half_width
    dtype: tl.constexpr = half.dtype.element_ty

    # The half level's row above the first row of cells, and the last row of the image that it takes in. A pixel of the
    # half level counts in the quarter as it is stored, rounded; outside the image all its sums are 0, but not beside
    # the last column and below the last row.
    above0, above1, above2 = _row_sums(x, 4 * top - 3, lane_height, column, width, pixel_stride, PLANAR)
    a0, a1, a2 = _row_sums(x, 4 * top - 2, lane_height, column, width, pixel_stride, PLANAR)
    d0, d1, d2 = _row_sums(x, 4 * top - 1, lane_height, column, width, pixel_stride, PLANAR)
    count = _inside(2 * top - 1, lane_height)
    above0 = tl.div_rn(above0 + a0 + d0, count * count0).to(dtype).to(tl.float32)
    above1 = tl.div_rn(above1 + a1 + d1, count * count1).to(dtype).to(tl.float32)
    above2 = tl.div_rn(above2 + a2 + d2, count * count2).to(dtype).to(tl.float32)
    above = above0 + above1 + tl.where(has_right, above2, 0.0)
    for i in range(rows):
        q = top + i
        a0, a1, a2 = _row_sums(x, 4 * q, lane_height, column, width, pixel_stride, PLANAR)
        b0, b1, b2 = _row_sums(x, 4 * q + 1, lane_height, column, width, pixel_stride, PLANAR)
        count = _inside(2 * q, lane_height)
        upper0 = tl.div_rn(d0 + a0 + b0, count * count0).to(dtype).to(tl.float32)
        upper1 = tl.div_rn(d1 + a1 + b1, count * count1).to(dtype).to(tl.float32)
        upper2 = tl.div_rn(d2 + a2 + b2, count * count2).to(dtype).to(tl.float32)
        _store_2(half, 2 * q, half_height, half_column, half_width, pixel_stride, PLANAR, upper1, upper2)
        a0, a1, a2 = _row_sums(x, 4 * q + 2, lane_height, column, width, pixel_stride, PLANAR)
        d0, d1, d2 = _row_sums(x, 4 * q + 3, lane_height, column, width, pixel_stride, PLANAR)
        count = _inside(2 * q + 1, lane_height)
        lower0 = tl.div_rn(b0 + a0 + d0, count * count0).to(dtype).to(tl.float32)
        lower1 = tl.div_rn(b1 + a1 + d1, count * count1).to(dtype).to(tl.float32)
        lower2 = tl.div_rn(b2 + a2 + d2, count * count2).to(dtype).to(tl.float32)
        _store_2(half, 2 * q + 1, half_height, half_column, half_width, pixel_stride, PLANAR, lower1, lower2)
        if quarter is not None:
            upper = upper0 + upper1 + tl.where(has_right, upper2, 0.0)
            lower = lower0 + lower1 + tl.where(has_right, lower2, 0.0)
            lower = tl.where(2 * q + 1 < half_height, lower, 0.0)
            mean = tl.div_rn(above + upper + lower, _inside(q, half_height) * _inside(cell, half_width))
            at = (plane * ((height + 3) // 4) + q) * quarter_width * pixel_stride + element
            inside = (q < quarter_height) & (cell < quarter_width)
            tl.store(quarter + at, mean.to(dtype), mask=inside)
            above = lower


@triton.jit
def _half_row(dhalf, row, height, column, width, pixel_stride, PLANAR: tl.constexpr, w0, w1, w2, d0, d2):
    """What each pixel in the windows of the half level's columns 2 cell, 2 cell + 1, 2 cell + 2 gets from their row.

    d0 and d2 come from the quarter level, at cell and cell + 1. height is that of the image, width that of the half
    level, w0 to w2 the reciprocals of the windows' widths; dhalf and column as x and column in _row_sums.
    """
    d1 = d0 + d2
    half_height = (height + 1) // 2
    if dhalf is not None:
        dhalf += row.to(tl.int64) * width * pixel_stride
        inside = row < half_height
        if PLANAR:
            block = tl.load(dhalf, mask=inside & (column < width), other=0.0).to(tl.float32)
            a, b = tl.split(tl.reshape(block, [block.shape[0], block.shape[1] // 2, 2]))
            block = tl.load(dhalf + 2, mask=inside & (column < width - 2), other=0.0).to(tl.float32)
            c, _ = tl.split(tl.reshape(block, [block.shape[0], block.shape[1] // 2, 2]))
        else:
            a = tl.load(dhalf, mask=inside & (column < width), other=0.0).to(tl.float32)
            b = tl.load(dhalf + pixel_stride, mask=inside & (column < width - 1), other=0.0).to(tl.float32)
            c = tl.load(dhalf + 2 * pixel_stride, mask=inside & (column < width - 2), other=0.0).to(tl.float32)
        d0, d1, d2 = d0 + a, d1 + b, d2 + c
    weight = tl.where(row < half_height, 1.0 / _inside(row, height), 0.0)
    return d0 * (weight * w0), d1 * (weight * w1), d2 * (weight * w2)


@triton.jit
def _quarter_row(dquarter, row, height, cell, width, pixel_stride, w0, w1):
    """What each pixel in the windows of the quarter level's columns cell and cell + 1 gets from their row.

    height and width are those of the half level, w0 and w1 the reciprocals of the windows' widths.
    """
    inside = row < (height + 1) // 2
    width = (width + 1) // 2
    dquarter += row.to(tl.int64) * width * pixel_stride
    weight = 1.0 / _inside(row, height)
    d0 = tl.load(dquarter, mask=inside & (cell < width), other=0.0).to(tl.float32)
    d1 = tl.load(dquarter + pixel_stride, mask=inside & (cell < width - 1), other=0.0).to(tl.float32)
    return d0 * (weight * w0), d1 * (weight * w1)


@triton.jit
def avg_pyramid_bwd_kernel(
    dhalf,  # [B, C, ceil(H/2), ceil(W/2)] or None
    dquarter,  # [B, C, ceil(H/4), ceil(W/4)] or None
    dx,  # [B, C, H, W], seen as [planes, height, width, elements of a pixel]
    planes,
    height,
    width,
    half_width,  # ceil(width / 2), for what Triton knows of its divisibility
    pixel_stride,  # elements from one pixel to the next
    blocks,  # of BLOCK_CELLS cells side by side
    bands,  # of a plane
    rows,  # of cells in a band
    PLANAR: tl.constexpr,  # pixel_stride == 1
    BLOCK_BANDS: tl.constexpr,  # bands of a program
    BLOCK_CELLS: tl.constexpr,  # cells of a program side by side, times their channels
):
    plane, top, lane_height, block = _bands(planes, height, blocks, bands, rows, BLOCK_BANDS)
    half_height = (lane_height + 1) // 2
    element = block * BLOCK_CELLS + tl.arange(0, BLOCK_CELLS)[None, :]
    cell = element // pixel_stride
    if PLANAR:
        column = 4 * block * BLOCK_CELLS + tl.arange(0, 4 * BLOCK_CELLS)[None, :]
        half_column = 2 * block * BLOCK_CELLS + tl.arange(0, 2 * BLOCK_CELLS)[None, :]
        at, half_at = column, half_column
    else:
        column, half_column = 4 * cell, 2 * cell
        at, half_at = (
            column * pixel_stride + element % pixel_stride,
            half_column * pixel_stride + element % pixel_stride,
        )
    dx += plane * height * width * pixel_stride + at
    if dhalf is not None:
        dhalf += plane * ((height + 1) // 2) * half_width * pixel_stride + half_at
    w0, w1 = 1.0 / _inside(2 * cell, width), 1.0 / _inside(2 * cell + 1, width)
    w1 = tl.where(2 * cell + 1 < half_width, w1, 0.0)
    w2 = tl.where(2 * cell + 2 < half_width, 1.0 / _inside(2 * cell + 2, width), 0.0)
    none = tl.full([BLOCK_BANDS, BLOCK_CELLS], 0.0, tl.float32)
    above0, above1, below0, below1 = none, none, none, none
    if dquarter is not None:
        dquarter += plane * ((height + 3) // 4) * ((half_width + 1) // 2) * pixel_stride + element
        v0, v1 = 1.0 / _inside(cell, half_width), 1.0 / _inside(cell + 1, half_width)
        above0, above1 = _quarter_row(dquarter, top, half_height, cell, half_width, pixel_stride, v0, v1)

    row = 2 * top
    a0, a1, a2 = _half_row(
        dhalf, row, lane_height, half_column, half_width, pixel_stride, PLANAR, w0, w1, w2, above0, above1
    )
    for i in range(rows):
        q = top + i
        if dquarter is not None:
            below0, below1 = _quarter_row(dquarter, q + 1, half_height, cell, half_width, pixel_stride, v0, v1)
        row, d0, d1 = 2 * q + 1, above0 + below0, above1 + below1
        b0, b1, b2 = _half_row(
            dhalf, row, lane_height, half_column, half_width, pixel_stride, PLANAR, w0, w1, w2, d0, d1
        )
        row = 2 * q + 2
        c0, c1, c2 = _half_row(
            dhalf, row, lane_height, half_column, half_width, pixel_stride, PLANAR, w0, w1, w2, below0, below1
        )
        row = 4 * q
        _store_4(dx, row, lane_height, column, width, pixel_stride, PLANAR, a0, a0 + a1, a1, a1 + a2)
        a0, a1, a2 = a0 + b0, a1 + b1, a2 + b2
        _store_4(dx, row + 1, lane_height, column, width, pixel_stride, PLANAR, a0, a0 + a1, a1, a1 + a2)
        _store_4(dx, row + 2, lane_height, column, width, pixel_stride, PLANAR, b0, b0 + b1, b1, b1 + b2)
        b0, b1, b2 = b0 + c0, b1 + c1, b2 + c2
        _store_4(dx, row + 3, lane_height, column, width, pixel_stride, PLANAR, b0, b0 + b1, b1, b1 + b2)
        a0, a1, a2, above0, above1 = c0, c1, c2, below0, below1


@cache
def _plan(shape: torch.Size, channels_last: bool, processors: int) -> Launch:
    """How either kernel is launched for a dense image [B, C, H, W]."""
    batch, channels, height, width = shape
    planes, pixel_stride = (batch, channels) if channels_last else (batch * channels, 1)
    if (width + 4) * pixel_stride >= 2**31:
        raise ValueError("avg_pyramid: expected rows of less than 2^31 elements")
    across, down = common.parts(width, 4) * pixel_stride, common.parts(height, 4)
    block_cells = common.block_of(across, CELLS)
    blocks = common.parts(across, block_cells)
    rows = _rows(down, planes * blocks, processors)
    bands = common.parts(down, rows)
    block_bands = common.block_of(planes * bands, CELLS // block_cells)
    sizes = (planes, height, width, (width + 1) // 2, pixel_stride, blocks, bands, rows)
    constants = {"PLANAR": pixel_stride == 1, "BLOCK_BANDS": block_bands, "BLOCK_CELLS": block_cells}
    return (blocks * common.parts(planes * bands, block_bands),), sizes, constants | common.OPTIONS


def _rows(down: int, side_by_side: int, processors: int) -> int:
    """Rows of cells in a band, of so many rows and so many blocks side by side in all images together."""
    return min(max(down * side_by_side // (8 * processors), ROWS[0]), ROWS[1])


@cache
def _plan_of_runs(shape: torch.Size, processors: int, forward: bool) -> Launch | None:
    """The same for channels_last images whose pixels begin anywhere; None for others, which need no runs."""
    batch, channels, height, width = shape
    margin, half_margin = common.parts(3 * channels, 8) * 8, common.parts(channels, 8) * 8
    cells = ((RUN - margin) // channels // 4) // 8 * 8
    if channels % 16 == 0 or cells == 0:
        return None
    cells = min(cells, common.parts(common.parts(width, 4), 8) * 8)
    blocks, down = common.parts(width, 4 * cells), common.parts(height, 4)
    rows = _rows(down, batch * blocks, processors)
    bands = common.parts(down, rows)
    half_width = (width + 1) // 2
    before = (margin, half_margin) if forward else (0, 0)
    constants = {
        "CHANNELS": channels, "CELLS": cells,
        "BLOCK": triton.next_power_of_2(before[0] + 4 * cells * channels),
        "HALF_BLOCK": triton.next_power_of_2(before[1] + (2 * cells + 1) * channels),
        "QUARTER_BLOCK": triton.next_power_of_2((cells + 1) * channels),
        # 16 warps on a multiprocessor. A cap of 128 registers spills on sm_80 in the backward pass.
        "num_warps": 8 if forward else 16, "maxnreg": 128,
    }  # fmt: skip
    if forward:
        constants |= {"MARGIN": margin, "HALF_MARGIN": half_margin}
    sizes = height, width, half_width, (half_width + 1) // 2, blocks, bands, rows
    return (batch * bands * blocks,), sizes, constants | common.OPTIONS


def _plans(x: Tensor, forward: bool) -> tuple[Launch, Launch | None]:
    shape, channels_last, processors = x.shape, common.is_channels_last(x), common.processors(x)
    runs = _plan_of_runs(shape, processors, forward) if channels_last else None
    return _plan(shape, channels_last, processors), runs


def avg_pyramid_fwd(x: Tensor, half: Tensor, quarter: Tensor | None) -> None:
    """x [B, C, H, W] -> half [B, C, ceil(H/2), ceil(W/2)] and, unless it is None, quarter: the half of half."""
    plan, runs = _plans(x, True)
    if runs is not None:
        grid, sizes, constants = runs
        avg_pyramid_fwd_runs_kernel[grid](x, half, quarter, *sizes, **constants)
        return
    grid, sizes, constants = plan
    # Unasked, ptxas spills on sm_80 rather than use more than 71 registers.
    avg_pyramid_fwd_kernel[grid](x, half, quarter, *sizes, **constants, maxnreg=128)


def avg_pyramid_bwd(dhalf: Tensor | None, dquarter: Tensor | None, dx: Tensor) -> None:
    """The gradients of both, of which either may be missing -> dx [B, C, H, W]."""
    plan, runs = _plans(dx, False)
    if runs is not None:
        grid, sizes, constants = runs
        avg_pyramid_bwd_runs_kernel[grid](dhalf, dquarter, dx, *sizes, **constants)
        return
    grid, sizes, constants = plan
    avg_pyramid_bwd_kernel[grid](dhalf, dquarter, dx, *sizes, **constants)
