"""What the Triton kernels share: memory formats and the shape of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}
"""Of every launch. Triton 3.9 warns where a program leaves this open, and 3.10 no longer does it unasked."""


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
