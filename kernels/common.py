"""What the Triton kernels share: memory formats and the shape of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}
"""Of every launch. Triton 3.9 warns where a program leaves this open, and 3.10 no longer does it unasked."""


MOST_ROWS = 65535
"""Programs of a grid in its directions 1 and 2."""


def grid_of(columns: int, rows: int) -> tuple[int, int, int]:
    """A grid of `columns` programs in its direction 0, for each of so many rows.

    More rows than the direction 1 has go on in the direction 2. Then there may be a few too many. `grid_row` says which
    one a program is in.
    """
    layers = parts(rows, MOST_ROWS)
    return columns, parts(rows, layers), layers


@triton.jit
def grid_row():
    return tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of x [B, C, H, W] are adjacent. A tensor that is also contiguous counts as contiguous."""
    return is_channels_last_of(x.shape, x.stride())


def is_channels_last_of(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """The same, of a tensor of this shape and these strides."""
    return shape[1] > 1 and stride[1] == 1 and shape[2] * shape[3] > 1


def parts(n: int, size: int) -> int:
    """How many parts of at most so many elements n elements make. `triton.cdiv` takes far longer."""
    return -(-n // size)


def block_of(n: int, largest: int) -> int:
    """Length of a block for n elements: a power of two, at most `largest`."""
    return min(triton.next_power_of_2(n), largest)


def processors(x: Tensor) -> int:
    """Multiprocessors of the GPU that x is on; 1 in the interpreter, where fewer programs are faster."""
    return _processors(x.get_device()) if x.is_cuda else 1


@cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
