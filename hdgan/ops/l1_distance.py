"""l1_distance: the mean absolute difference of features and their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hdgan.ops._backend import choose, declared, launch
from hdgan.ops._checks import check_same_device, dense, memory_format_of
from hdgan.ops._register import register
from hdgan.ops._torch_internals import transforms_active

MOST_DIMENSIONS = 4
"""Of what kernels read."""


def l1_distance_reference(x: Tensor, target: Tensor) -> Tensor:
    wide = torch.promote_types(torch.promote_types(x.dtype, target.dtype), torch.float32)
    return (x.to(wide) - target.to(wide)).abs().mean()


def _forward(x: Tensor, target: Tensor, with_sign: bool, backend: str) -> tuple[Tensor, Tensor]:
    x = dense(x)
    target = target.contiguous(memory_format=memory_format_of(x))
    distance, sign = _fake(x, target, with_sign, backend)
    tensors = x, target, distance, sign if with_sign else None, _scratch(x, backend)
    launch("l1_distance", "fwd", backend, x.device, *tensors)
    return distance, sign


def _fake(x: Tensor, target: Any, with_sign: bool, backend: str) -> tuple[Tensor, Tensor]:
    """The distance, and the sign of each difference, which is empty if it is not wanted."""
    distance = x.new_empty((), dtype=torch.float32)
    if not with_sign:
        return distance, x.new_empty(0, dtype=torch.int8)
    return distance, torch.empty(x.shape, dtype=torch.int8, device=x.device, memory_format=memory_format_of(x))


def _scratch(x: Tensor, backend: str) -> Tensor | None:
    if backend == "cpu":
        return None  # it takes its own
    return x.new_empty(declared("l1_distance", "scratch", backend, x.numel()), dtype=torch.float32)


def _backward(dy: Tensor, sign: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    sign = dense(sign)
    dx = _backward_fake(dy, sign, dtype, backend)
    launch("l1_distance", "bwd", backend, dx.device, dy, sign, dx)
    return dx


def _backward_fake(dy: Any, sign: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    return torch.empty(sign.shape, dtype=dtype, device=sign.device, memory_format=memory_format_of(sign))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, _, ctx.backend = inputs
    _, sign = output
    ctx.dtype = x.dtype
    ctx.mark_non_differentiable(sign)
    ctx.set_materialize_grads(False)  # zeros for the signs would be as large as they are
    ctx.save_for_backward(sign)


def _backward_of(ctx: Any, dy: Tensor | None, _: Any) -> tuple[Any, ...]:
    if dy is None:
        return None, None, None, None
    return _l1_distance_backward(dy, *ctx.saved_tensors, ctx.dtype, ctx.backend), None, None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, sign, _, _ = inputs
    ctx.save_for_backward(sign)


def _double_backward_of(ctx: Any, ddx: Tensor) -> tuple[Any, ...]:
    (sign,) = ctx.saved_tensors
    return (ddx.float() * sign).mean(), None, None, None


def _one_by_one(op: Callable[..., Any], info: Any, mapped: Sequence[Any], *args: Any) -> tuple[Any, Any]:
    """The rule for `torch.vmap`: every distance is a call of its own, because it is of all elements."""
    results = [
        op(*(x if dim is None else x.select(dim, k) for x, dim in zip(args, mapped, strict=True)))
        for k in range(info.batch_size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results, strict=True))), (0, 0)


_l1_distance = register(
    "l1_distance(Tensor x, Tensor target, bool with_sign, str backend) -> (Tensor distance, Tensor sign)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward_of,
    batched=_one_by_one,
)
_l1_distance_backward = register(
    "l1_distance_backward(Tensor dy, Tensor sign, ScalarType dtype, str backend) -> Tensor",
    _backward,
    _backward_fake,
    setup_context=_setup_backward,
    backward=_double_backward_of,
    batched=_one_by_one,
)


def _check(x: Tensor, target: Tensor) -> None:
    """Refuse unsuitable arguments; the message says what was expected and given."""
    if x.shape != target.shape:
        raise ValueError(f"l1_distance: expected a target of shape {tuple(x.shape)}, got {tuple(target.shape)}")
    for name, given in (("x", x), ("target", target)):
        if not given.is_floating_point():
            raise TypeError(f"l1_distance: expected {name} of a floating-point dtype, got {given.dtype}")
    if x.numel() == 0:
        raise ValueError(f"l1_distance: expected a non-empty x, got shape {tuple(x.shape)}")
    check_same_device("l1_distance", x=x, target=target)


def l1_distance(x: Tensor, target: Tensor, *, backend: str | None = None) -> Tensor:
    """Mean absolute difference of `x` and a target, which gets no gradient.

    Each direction is one pass. The kernels keep one byte per element for the backward pass, the sign of its difference,
    where F.l1_loss keeps both tensors. Every run gives the same bits. Where an element equals its target, its gradient
    is 0.

    Args:
        x: of any shape, floating point.
        target: of the same shape, floating point. It is fastest if it has the dtype and the memory format of `x`.
        backend: implementation by name; None chooses.

    Returns:
        Scalar float32; float64 if `x` or `target` is.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device; the message says what was expected and given.
        BackendError: the named backend cannot run.
    """
    _check(x, target)
    target = target.detach()
    dtype = torch.promote_types(x.dtype, target.dtype)
    chosen = choose("l1_distance", backend, x, dtype)
    if chosen == "eager":
        return l1_distance_reference(x, target)
    x, target = x.to(dtype), target.to(dtype)
    if x.dim() > MOST_DIMENSIONS:
        x, target = x.flatten(), target.flatten()
    # Inside of torch.vmap, a tensor does not say whether it requires a gradient outside.
    with_sign = torch.is_grad_enabled() and (x.requires_grad or transforms_active())
    return _l1_distance(x, target, with_sign, chosen)[0]
