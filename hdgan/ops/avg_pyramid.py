"""avg_pyramid: the image pyramid of the multi-scale discriminators and of the local enhancer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hdgan.ops._backend import resolve
from hdgan.ops._checks import check_image


def avg_pyramid_reference(x: Tensor, levels: int) -> list[Tensor]:
    pyramid = [x]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 3, stride=2, padding=1, count_include_pad=False))
    return pyramid


def avg_pyramid(x: Tensor, levels: int, *, backend: str | None = None) -> list[Tensor]:
    """Halve `x` `levels` times by 3x3 average pooling that leaves the padding out of its count.

    The pooling of NVIDIA/pix2pixHD: AvgPool2d(3, stride=2, padding=1, count_include_pad=False), applied repeatedly.

    Args:
        x: [B, C, H, W] floating point.
        levels: how many smaller levels to make; 0 gives [x].
        backend: implementation by name; None chooses.

    Returns:
        levels + 1 tensors; level k is [B, C, ceil(H / 2^k), ceil(W / 2^k)] in the dtype and memory format of `x`.

    Raises:
        TypeError, ValueError: wrong dtype or shape, or levels < 0.
        BackendError: the named backend cannot run.
    """
    check_image("avg_pyramid", "x", x)
    if levels < 0:
        raise ValueError(f"avg_pyramid: expected levels >= 0, got {levels}")
    return resolve("avg_pyramid", backend, {"eager": avg_pyramid_reference})(x, levels)
