"""Matrices of label_conv2d: the planes of a class under a tile, and products that keep the accuracy of float32."""

from __future__ import annotations

import triton
import triton.language as tl

from hdgan.kernels._label_conv2d_tiles import source_of


@triton.jit
def next_flag(flags, after):
    """The first of a block's flags behind number `after` that is set: 4 times its number, plus its value."""
    number = tl.arange(0, flags.shape[0])
    return tl.min(tl.where((flags != 0) & (number > after), 4 * number + flags, 2**30))


@triton.jit
def write_plane(
    codes, pool_y, pool_x, window, plane, top, left, height, width, plane_height, plane_width, n_labels, padding,
    span, step, before, PAD_MODE: tl.constexpr, WINDOW: tl.constexpr, BLOCK_WINDOW: tl.constexpr,
):  # fmt: skip
    """Write one of the padded planes, in WINDOW rows and columns from row `top` and column `left` on, to `window`.

    Triton has no shared memory that a program can index; what it has just written is in the first cache. A program
    writes to two windows in turn, so that no thread still reads what another overwrites.
    """
    at = tl.arange(0, BLOCK_WINDOW)
    at_row = tl.minimum(top + at // WINDOW, plane_height - 1 + padding)
    at_column = tl.minimum(left + at % WINDOW, plane_width - 1 + padding)
    row, column = source_of(at_row, plane_height, PAD_MODE), source_of(at_column, plane_width, PAD_MODE)
    counts = at >= 0
    if PAD_MODE == "zero":
        counts = (at_row == row) & (at_column == column)
    value = tl.zeros([BLOCK_WINDOW], tl.float32)
    for s in range(span):
        y = row * step - before + s
        counts_y = counts & (y >= 0) & (y < height)
        weight_y = counts_y.to(tl.float32)
        if pool_y is not None:
            weight_y = tl.load(pool_y + row * span + s, mask=counts_y, other=0.0)
        for t in range(span):
            x = column * step - before + t
            counts_x = counts_y & (x >= 0) & (x < width)
            weight = weight_y
            if pool_x is not None:
                weight = weight_y * tl.load(pool_x + column * span + t, mask=counts_x, other=0.0)
            code = tl.load(codes + y.to(tl.int64) * width + x, mask=counts_x, other=0)
            shown = (code == plane) | (code == plane + n_labels + 1)
            if plane == n_labels:
                shown = code > n_labels
            value += tl.where(shown, weight, 0.0)
    tl.store(window + at, value)
    tl.debug_barrier()


@triton.jit
def tap_offset(tap, SIDE: tl.constexpr, WINDOW: tl.constexpr):
    """Where a tap is in a window, from the pixel's own place on; the last one for numbers beyond it."""
    tap = tl.minimum(tap, SIDE * SIDE - 1)
    return tap // SIDE * WINDOW + tap % SIDE


@triton.jit
def _halves(x):
    """x as a number that TF32 holds, and what is left of it, of which TF32 holds 11 bits."""
    high = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def add_product(total, a, b, SPLIT_A: tl.constexpr, SPLIT_B: tl.constexpr):
    """total + a @ b. What is split need not be exact in TF32."""
    if SPLIT_A:
        a, low = _halves(a)
        total = tl.dot(low, b, total, input_precision="tf32")
    if SPLIT_B:
        b, low = _halves(b)
        total = tl.dot(a, low, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision="tf32")
