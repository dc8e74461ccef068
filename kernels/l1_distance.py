"""l1_distance: the mean absolute difference of two dense tensors, and its gradient from the signs.

Each program adds up its blocks, and one more program adds the sums of all in a fixed order. Nothing is atomic, so that
every run gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from hdgan.kernels import common

BLOCK = 2048  # elements of one program at a time
MOST_PROGRAMS = 8192


@triton.jit
def l1_distance_fwd_kernel(
    x,  # n elements
    target,  # n elements
    sign,  # n int8 out, or None
    partial,  # [programs] float32 out
    n,
    programs,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(program * BLOCK, n, programs * BLOCK):
        i = begin + tl.arange(0, BLOCK)
        difference = tl.load(x + i, mask=i < n, other=0.0).to(tl.float32)
        difference -= tl.load(target + i, mask=i < n, other=0.0).to(tl.float32)
        total += tl.abs(difference)
        if sign is not None:
            signs = (difference > 0).to(tl.int8) - (difference < 0).to(tl.int8)
            tl.store(sign + i, signs, mask=i < n)
    tl.store(partial + program, tl.sum(total, 0))


@triton.jit
def l1_distance_mean_kernel(
    partial,  # [programs] float32
    distance,  # [1] float32 out
    programs,
    count,  # n as float
    BLOCK: tl.constexpr,  # at least `programs`
):
    i = tl.arange(0, BLOCK)
    total = tl.sum(tl.load(partial + i, mask=i < programs, other=0.0), 0)
    tl.store(distance, tl.div_rn(total, count))


@triton.jit
def l1_distance_bwd_kernel(
    dy,  # [1] float32
    sign,  # n int8
    dx,  # n elements out
    n,
    count,  # n as float
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.div_rn(tl.load(dy), count)
    signs = tl.load(sign + i, mask=i < n, other=0).to(tl.float32)
    tl.store(dx + i, (signs * scale).to(dx.dtype.element_ty), mask=i < n)


def l1_distance_scratch(elements: int) -> int:
    """Elements of scratch for so many of x: one sum for each program."""
    return min(-(-elements // BLOCK), MOST_PROGRAMS)


def l1_distance_fwd(x: Tensor, target: Tensor, distance: Tensor, sign: Tensor | None, scratch: Tensor) -> None:
    """x and target, dense and in one order -> distance [] and sign as x."""
    n = x.numel()
    programs = l1_distance_scratch(n)
    l1_distance_fwd_kernel[(programs,)](x, target, sign, scratch, n, programs, BLOCK=BLOCK, **common.OPTIONS)
    l1_distance_mean_kernel[(1,)](
        scratch, distance, programs, float(n), BLOCK=MOST_PROGRAMS, num_warps=8, **common.OPTIONS
    )


def l1_distance_bwd(dy: Tensor, sign: Tensor, dx: Tensor) -> None:
    """dy [] and sign -> dx in the order of sign."""
    n = dx.numel()
    l1_distance_bwd_kernel[(-(-n // BLOCK),)](dy, sign, dx, n, float(n), BLOCK=BLOCK, **common.OPTIONS)
