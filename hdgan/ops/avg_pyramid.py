"""avg_pyramid: the image pyramid of the multi-scale discriminators and of the local enhancer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.ops._backend import choose, launch
from hdgan.ops._checks import check_image, dense, empty_as, memory_format_of
from hdgan.ops._register import register


def avg_pyramid_reference(x: Tensor, levels: int) -> list[Tensor]:
    pyramid = [x]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 3, stride=2, padding=1, count_include_pad=False))
    return pyramid


def _forward(x: Tensor, levels: int, backend: str) -> list[Tensor]:
    pyramid = [dense(x), *_fake(x, levels, backend)]
    for k in range(0, levels, 2):  # the kernels make two levels from one read
        quarter = pyramid[k + 2] if k + 2 <= levels else None
        launch("avg_pyramid", "fwd", backend, x.device, pyramid[k], pyramid[k + 1], quarter)
    return pyramid[1:]


def _fake(x: Tensor, levels: int, backend: str) -> list[Tensor]:
    shapes = _shapes(x.shape, levels)
    return [empty_as(x, shape) for shape in shapes[1:]]


def _shapes(shape: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """Of the image and its levels."""
    batch, channels, height, width = shape
    made: list[tuple[int, ...]] = [(batch, channels, height, width)]
    for _ in range(levels):
        height, width = (height + 1) // 2, (width + 1) // 2
        made.append((batch, channels, height, width))
    return made


def _backward(dlevels: Sequence[Tensor | None], shape: Sequence[int], channels_last: bool, backend: str) -> Tensor:
    format = torch.channels_last if channels_last else torch.contiguous_format
    grads = [None if grad is None else grad.contiguous(memory_format=format) for grad in dlevels]
    like = next(grad for grad in grads if grad is not None)
    shapes = _shapes(shape, len(grads))
    dx: Tensor | None = None  # of the finest level reached
    for k in reversed(range(0, len(grads), 2)):
        dhalf, dquarter = grads[k], grads[k + 1] if k + 1 < len(grads) else None
        if dx is not None:
            dquarter = dx if dquarter is None else dquarter + dx
        if dhalf is None and dquarter is None:
            continue
        dx = torch.empty(shapes[k], dtype=like.dtype, device=like.device, memory_format=format)
        launch("avg_pyramid", "bwd", backend, like.device, dhalf, dquarter, dx)
    assert dx is not None
    return dx


def _backward_fake(dlevels: Sequence[Tensor | None], shape: Sequence[int], channels_last: bool, backend: str) -> Tensor:
    like = next(grad for grad in dlevels if grad is not None)
    return like.new_empty(shape).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, _, ctx.backend = inputs
    ctx.shape, ctx.channels_last = x.shape, memory_format_of(x) == torch.channels_last


def _backward_of(ctx: Any, dlevels: list[Tensor | None]) -> tuple[Any, ...]:
    return _avg_pyramid_backward(dlevels, ctx.shape, ctx.channels_last, ctx.backend), None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dlevels, _, _, ctx.backend = inputs
    ctx.present = [grad is not None for grad in dlevels]


def _double_backward_of(ctx: Any, ddx: Tensor) -> tuple[Any, ...]:
    levels = _avg_pyramid(ddx, len(ctx.present), ctx.backend)  # the transpose of the transpose
    return [d if present else None for d, present in zip(levels, ctx.present, strict=True)], None, None, None


_avg_pyramid = register(
    "avg_pyramid(Tensor x, int levels, str backend) -> Tensor[]",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward_of,
)
_avg_pyramid_backward = register(
    "avg_pyramid_backward(Tensor?[] dlevels, SymInt[] shape, bool channels_last, str backend) -> Tensor",
    _backward,
    _backward_fake,
    setup_context=_setup_backward,
    backward=_double_backward_of,
)


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
    chosen = choose("avg_pyramid", backend, x)
    if chosen == "eager" or levels == 0:
        return avg_pyramid_reference(x, levels)
    return [x, *_avg_pyramid(x, levels, chosen)]
