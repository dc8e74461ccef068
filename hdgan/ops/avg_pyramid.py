"""avg_pyramid: the image pyramid of the multi-scale discriminators and of the local enhancer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function

from hdgan.ops._backend import choose, launch
from hdgan.ops._checks import check_image, dense, empty_as, format_of, is_channels_last
from hdgan.ops._overrides import is_taken
from hdgan.ops._register import fold, folding, register


def avg_pyramid_reference(x: Tensor, levels: int) -> list[Tensor]:
    pyramid = [x]
    for _ in range(levels):
        pyramid.append(F.avg_pool2d(pyramid[-1], 3, stride=2, padding=1, count_include_pad=False))
    return pyramid


# The kernels make two levels from one read, and so does an operator. None of them takes or returns a list of tensors,
# which torch.autograd.functional.jacobian(vectorize=True) could not map over.


def _forward(x: Tensor, two: bool, backend: str) -> tuple[Tensor, Tensor]:
    x = dense(x)
    half, quarter = _fake(x, two, backend)
    launch("avg_pyramid", "fwd", backend, x.device, x, half, quarter if two else None)
    return half, quarter


def _fake(x: Tensor, two: bool, backend: str) -> tuple[Tensor, Tensor]:
    """The next level, and with `two` the one after it, which is empty otherwise."""
    half = empty_as(x, _halved(x.shape))
    return half, empty_as(x, _halved(half.shape)) if two else x.new_empty(0)


def _halved(shape: Sequence[int]) -> tuple[int, ...]:
    batch, channels, height, width = shape
    return batch, channels, (height + 1) // 2, (width + 1) // 2


def _backward(dhalf: Tensor | None, dquarter: Tensor | None, *options: Any) -> Tensor:
    dx = _backward_fake(dhalf, dquarter, *options)
    _, channels_last, backend = options
    format = format_of(channels_last)
    grads = [None if grad is None else grad.contiguous(memory_format=format) for grad in (dhalf, dquarter)]
    launch("avg_pyramid", "bwd", backend, dx.device, *grads, dx)
    return dx


def _backward_fake(dhalf: Tensor | None, dquarter: Tensor | None, *options: Any) -> Tensor:
    shape, channels_last, _ = options
    like = dquarter if dhalf is None else dhalf
    assert like is not None
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=format_of(channels_last))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.two, ctx.backend = inputs
    ctx.shape, ctx.channels_last = x.shape, is_channels_last(x)
    ctx.set_materialize_grads(False)  # a level that nothing uses has no gradient to add


def _backward_of(ctx: Any, dhalf: Tensor | None, dquarter: Tensor | None) -> tuple[Any, ...]:
    dquarter = dquarter if ctx.two else None
    if dhalf is None and dquarter is None:
        return None, None, None
    return _avg_pyramid_backward(dhalf, dquarter, ctx.shape, ctx.channels_last, ctx.backend), None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dhalf, dquarter, _, _, ctx.backend = inputs
    ctx.given = dhalf is not None, dquarter is not None


def _double_backward_of(ctx: Any, ddx: Tensor) -> tuple[Any, ...]:
    levels = _avg_pyramid(ddx, ctx.given[1], ctx.backend)  # the transpose of the transpose
    return *(dd if given else None for dd, given in zip(levels, ctx.given, strict=True)), None, None, None


def _backward_batched(
    op: Callable[..., Tensor], info: Any, mapped: Sequence[Any], dhalf: Any, dquarter: Any, *args: Any
) -> tuple[Tensor, int]:
    (batch, *others), *options = args
    size = info.batch_size
    grads = [fold(grad, dim, 0, size) for grad, dim in zip((dhalf, dquarter), mapped, strict=False)]
    return op(*grads, (size * batch, *others), *options).unflatten(0, (size, -1)), 0


_avg_pyramid = register(
    "avg_pyramid(Tensor x, bool two, str backend) -> (Tensor half, Tensor quarter)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward_of,
    batched=folding((0,), lambda _: 0),
)
_avg_pyramid_backward = register(
    "avg_pyramid_backward(Tensor? dhalf, Tensor? dquarter, SymInt[] shape, bool channels_last, str backend) -> Tensor",
    _backward,
    _backward_fake,
    setup_context=_setup_backward,
    backward=_double_backward_of,
    batched=_backward_batched,
)


def avg_pyramid(x: Tensor, levels: int, *, backend: str | None = None) -> list[Tensor]:
    """Halve `x` `levels` times by 3x3 average pooling that does not count the padding.

    The pooling of NVIDIA/pix2pixHD: AvgPool2d(3, stride=2, padding=1, count_include_pad=False), applied repeatedly.

    Args:
        x: [B, C, H, W] floating point.
        levels: the number of smaller levels; 0 gives [x].
        backend: implementation by name; None chooses.

    Returns:
        levels + 1 tensors; level k is [B, C, ceil(H / 2^k), ceil(W / 2^k)] in the dtype and memory format of `x`.

    Raises:
        TypeError, ValueError: wrong dtype or shape, or levels < 0.
        BackendError: the named backend cannot run.
    """
    if is_taken((x,)):
        return handle_torch_function(avg_pyramid, (x,), x, levels, backend=backend)
    check_image("avg_pyramid", x)
    if levels < 0:
        raise ValueError(f"avg_pyramid: expected levels >= 0, got {levels}")
    chosen = choose("avg_pyramid", backend, x)
    if chosen == "eager" or levels == 0:
        return avg_pyramid_reference(x, levels)
    pyramid = [x]
    while len(pyramid) <= levels:
        half, quarter = _avg_pyramid(pyramid[-1], len(pyramid) < levels, chosen)
        pyramid += [half, quarter]
    return pyramid[: levels + 1]
