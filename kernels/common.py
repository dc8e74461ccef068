"""What the Triton kernels share: memory formats and the shape of the grid."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of x [B, C, H, W] are adjacent. A tensor that is also contiguous counts as contiguous."""
    return x.shape[1] > 1 and x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1


def planes_of(x: Tensor) -> tuple[int, int]:
    """See dense x [B, C, H, W] as planes of H * W pixels: how many there are, and how many elements a pixel has.

    A channels_last image is one plane whose pixels have C elements, a contiguous one C planes of single elements.
    """
    return (x.shape[0], x.shape[1]) if is_channels_last(x) else (x.shape[0] * x.shape[1], 1)


def block_of(n: int, largest: int) -> int:
    """Length of a block for n elements: a power of two, at most `largest`."""
    return min(triton.next_power_of_2(n), largest)


def processors(x: Tensor) -> int:
    """Multiprocessors of the GPU that x is on; 1 in the interpreter, where fewer programs are faster."""
    return _processors(x.get_device()) if x.is_cuda else 1


@cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
