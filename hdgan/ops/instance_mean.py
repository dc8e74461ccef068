"""instance_mean: the instance-wise average pooling of pix2pixHD's encoder (paper section 3.4), and its two halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hdgan.ops._backend import choose, declared, launch
from hdgan.ops._checks import (
    check_image,
    check_same_device,
    dense,
    empty_as,
    format_of,
    is_channels_last,
    memory_format_of,
)
from hdgan.ops._register import folding, register
from hdgan.ops.instance_index import InstanceIndex, instance_index


def instance_reduce_reference(x: Tensor, index: InstanceIndex) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    values = x.to(dtype).transpose(0, 1).flatten(1)  # [C, B*H*W]
    rows = index.rows.flatten().long().expand_as(values)
    sums = values.new_zeros(x.shape[1], index.counts.numel()).scatter_add(1, rows, values)  # [C, N]
    return (sums / index.counts).t().contiguous()


def instance_broadcast_reference(values: Tensor, index: InstanceIndex) -> Tensor:
    batch, height, width = index.rows.shape
    pixels = values.t().index_select(1, index.rows.flatten().long())  # [C, B*H*W]
    return pixels.view(-1, batch, height, width).transpose(0, 1).contiguous()


def instance_mean_reference(x: Tensor, index: InstanceIndex) -> Tensor:
    means = instance_broadcast_reference(instance_reduce_reference(x, index), index)
    return means.to(x.dtype).contiguous(memory_format=memory_format_of(x))


def _sums(x: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, backend: str) -> Tensor:
    """Sums over each instance, [N, C] float32."""
    x, n, channels = dense(x), counts.numel(), x.shape[1]
    if n < x.shape[0]:  # which the number of instances may not be known for earlier
        raise ValueError(
            f"instance_mean: expected instances in each of {x.shape[0]} images, got {n} in all: "
            "an index must stay whole"
        )
    if backend != "cpu" and torch.are_deterministic_algorithms_enabled():
        return _sums_in_order(x, rows, counts, backend)
    make = torch.empty if backend == "cpu" else torch.zeros  # GPU kernels add to what is there
    sums = make(n, channels, dtype=torch.float32, device=x.device)
    launch("instance_mean", "reduce", backend, x.device, x, rows.contiguous(), offsets.contiguous(), sums)
    return sums


def _sums_in_order(x: Tensor, rows: Tensor, counts: Tensor, backend: str) -> Tensor:
    """The same sums without atomic additions of floats, whose order is random. Pixels are sorted by instance
    instead."""
    order = rows.flatten().sort(stable=True).indices  # [B * H * W]
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # [N + 1] where an instance begins in it
    n = counts.numel()
    pieces = declared("instance_mean", "pieces", backend, order.numel(), n)  # of each instance
    partial = torch.empty(pieces, n, x.shape[1], dtype=torch.float32, device=x.device)
    launch("instance_mean", "reduce_sorted", backend, x.device, x, order, starts, partial)
    return partial.sum(0)


def _paint(table: Tensor, rows: Tensor, counts: Tensor | None, y: Tensor, backend: str) -> Tensor:
    """Write table [N, C], divided by counts unless they are missing, to the pixels of y."""
    table, counts = table.float().contiguous(), None if counts is None else counts.contiguous()
    launch("instance_mean", "broadcast", backend, y.device, table, rows.contiguous(), counts, y)
    return y


def _mean(x: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, backend: str) -> Tensor:
    return _paint(_sums(x, rows, offsets, counts, backend), rows, counts, empty_as(x, x.shape), backend)


def _mean_fake(x: Tensor, *_: Any) -> Tensor:
    return empty_as(x, x.shape)


def _reduce(x: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, *options: Any) -> Tensor:
    divide, dtype, backend = options
    sums = _sums(x, rows, offsets, counts, backend)
    return (sums / counts.unsqueeze(1) if divide else sums).to(dtype)


def _reduce_fake(x: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, *options: Any) -> Tensor:
    _, dtype, _ = options
    return x.new_empty(counts.shape[0], x.shape[1], dtype=dtype)


def _broadcast(values: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, *options: Any) -> Tensor:
    divide, _, _, backend = options
    y = _broadcast_fake(values, rows, offsets, counts, *options)
    return _paint(values, rows, counts if divide else None, y, backend)


def _broadcast_fake(values: Tensor, rows: Tensor, offsets: Tensor, counts: Tensor, *options: Any) -> Tensor:
    _, dtype, channels_last, _ = options
    shape = rows.shape[0], values.shape[1], *rows.shape[1:]
    return torch.empty(shape, dtype=dtype, device=values.device, memory_format=format_of(channels_last))


# Reducing and broadcasting are each other's transpose if both divide by the counts or neither does. So each is the
# other's gradient, and the mean is its own.


def _setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    of, rows, offsets, counts, *ctx.options = inputs
    ctx.save_for_backward(rows, offsets, counts)
    ctx.dtype, ctx.channels_last = of.dtype, of.dim() == 4 and is_channels_last(of)


def _mean_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    dy = dy.contiguous(memory_format=format_of(ctx.channels_last))
    return _instance_mean(dy, *ctx.saved_tensors, *ctx.options), None, None, None, None


def _reduce_backward(ctx: Any, dvalues: Tensor) -> tuple[Any, ...]:
    divide, _, backend = ctx.options
    dx = _instance_broadcast(dvalues, *ctx.saved_tensors, divide, ctx.dtype, ctx.channels_last, backend)
    return dx, None, None, None, None, None, None


def _broadcast_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    divide, _, _, backend = ctx.options
    dvalues = _instance_reduce(dy, *ctx.saved_tensors, divide, ctx.dtype, backend)
    return dvalues, None, None, None, None, None, None, None


_instance_mean = register(
    "instance_mean(Tensor x, Tensor rows, Tensor offsets, Tensor counts, str backend) -> Tensor",
    _mean,
    _mean_fake,
    setup_context=_setup,
    backward=_mean_backward,
    batched=folding((1, None, None, None), lambda _: 1),
)
_instance_reduce = register(
    "instance_reduce(Tensor x, Tensor rows, Tensor offsets, Tensor counts, bool divide, ScalarType dtype, str backend) "
    "-> Tensor",
    _reduce,
    _reduce_fake,
    setup_context=_setup,
    backward=_reduce_backward,
    batched=folding((1, None, None, None), lambda _: 1),
)
_instance_broadcast = register(
    "instance_broadcast(Tensor values, Tensor rows, Tensor offsets, Tensor counts, bool divide, ScalarType dtype, "
    "bool channels_last, str backend) -> Tensor",
    _broadcast,
    _broadcast_fake,
    setup_context=_setup,
    backward=_broadcast_backward,
    batched=folding((1, None, None, None), lambda _: 1),
)


def instance_reduce(x: Tensor, index: InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Average `x` over each instance.

    Args:
        x: [B, C, H, W] floating point.
        index: from `instance_index` of maps of the same size.
        backend: implementation by name; None chooses.

    Returns:
        [N, C] float32 (float64 for float64 input): one row per instance of the batch.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device; the message says what was expected and given.
        BackendError: the named backend cannot run.
    """
    _check("instance_reduce", x, index)
    chosen = choose("instance_reduce", backend, x)
    if chosen == "eager":
        return instance_reduce_reference(x, index)
    return _instance_reduce(x, index.rows, index.offsets, index.counts, True, torch.float32, chosen)


def instance_broadcast(values: Tensor, index: InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Write each instance's row of `values` to its pixels.

    Args:
        values: [N, C] floating point, one row per instance of the batch.
        index: from `instance_index`.
        backend: implementation by name; None chooses.

    Returns:
        [B, C, H, W] in the dtype of `values`, contiguous.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device; the message says what was expected and given.
        BackendError: the named backend cannot run.
    """
    if not values.is_floating_point():
        raise TypeError(f"instance_broadcast: expected values of a floating-point dtype, got {values.dtype}")
    if values.dim() != 2 or values.shape[0] != index.counts.shape[0] or values.shape[1] == 0:
        raise ValueError(
            f"instance_broadcast: expected values of shape [{index.counts.shape[0]}, C], one row per instance, "
            f"got {tuple(values.shape)}"
        )
    check_same_device("instance_broadcast", values=values, index=index.rows)
    _check_index("instance_broadcast", index)
    chosen = choose("instance_broadcast", backend, values)
    if chosen == "eager":
        return instance_broadcast_reference(values, index)
    return _instance_broadcast(values, index.rows, index.offsets, index.counts, False, values.dtype, False, chosen)


def instance_mean(x: Tensor, ids: Tensor | InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Give every pixel the mean of its instance in its own image.

    Linear, symmetric and idempotent, so its gradient is the same operation.

    Args:
        x: [B, C, H, W] floating point.
        ids: [B, H, W] or [B, 1, H, W] integer instance ids, or their `instance_index`.
        backend: implementation by name; None chooses.

    Returns:
        Tensor like `x` in shape, dtype and memory format; sums are taken in float32 at least. They are the same in
        every run on a CPU, and on a GPU under `torch.use_deterministic_algorithms`, which costs a sort of the pixels.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device; the message says what was expected and given.
        BackendError: the named backend cannot run.
    """
    index = ids if isinstance(ids, InstanceIndex) else instance_index(ids, backend=backend)
    _check("instance_mean", x, index)
    chosen = choose("instance_mean", backend, x)
    if chosen == "eager":
        return instance_mean_reference(x, index)
    return _instance_mean(x, index.rows, index.offsets, index.counts, chosen)


def _check(op: str, x: Tensor, index: InstanceIndex) -> None:
    check_image(op, x)
    check_same_device(op, x=x, ids=index.rows)
    _check_index(op, index)
    expected = (x.shape[0], *x.shape[2:])
    if tuple(index.rows.shape) != expected:
        raise ValueError(f"{op}: expected ids of shape {expected} to match x, got {tuple(index.rows.shape)}")


def _check_index(op: str, index: InstanceIndex) -> None:
    """Kernels trust an index. In one that was put together by hand, this finds the faults that are cheap to see."""
    rows, offsets, _, counts = index
    check_same_device(op, rows=rows, offsets=offsets, counts=counts)
    dtypes = (rows.dtype, offsets.dtype, counts.dtype)
    if dtypes != (torch.int32, torch.int64, torch.int64):
        raise TypeError(f"{op}: expected rows, offsets and counts in int32, int64 and int64, got {dtypes}")
    if rows.dim() != 3 or rows.numel() == 0:
        raise ValueError(f"{op}: expected non-empty rows of shape [B, H, W], got {tuple(rows.shape)}")
    if counts.dim() != 1:
        raise ValueError(f"{op}: expected counts of shape [N], got {tuple(counts.shape)}")
    if tuple(offsets.shape) != (rows.shape[0] + 1,):
        raise ValueError(f"{op}: expected offsets of shape {(rows.shape[0] + 1,)}, got {tuple(offsets.shape)}")
