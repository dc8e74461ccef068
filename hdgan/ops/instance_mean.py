"""instance_mean: the instance-wise average pooling of pix2pixHD's encoder (paper section 3.4), and its two halves."""

from __future__ import annotations

import torch
from torch import Tensor

from hdgan.ops._backend import resolve
from hdgan.ops._checks import check_image, check_same_device, memory_format_of
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


def instance_reduce(x: Tensor, index: InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Average `x` over each instance.

    Args:
        x: [B, C, H, W] floating point.
        index: from `instance_index` of maps of the same size.
        backend: implementation by name; None chooses.

    Returns:
        [N, C] float32 (float64 for float64 input): one row per instance of the batch.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device, saying expected and got.
        BackendError: the named backend cannot run.
    """
    _check("instance_reduce", x, index)
    return resolve("instance_reduce", backend, {"eager": instance_reduce_reference})(x, index)


def instance_broadcast(values: Tensor, index: InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Write each instance's row of `values` to its pixels.

    Args:
        values: [N, C], one row per instance of the batch.
        index: from `instance_index`.
        backend: implementation by name; None chooses.

    Returns:
        [B, C, H, W] in the dtype of `values`.

    Raises:
        ValueError: wrong shape or device, saying expected and got.
        BackendError: the named backend cannot run.
    """
    if values.dim() != 2 or values.shape[0] != index.counts.numel():
        raise ValueError(
            f"instance_broadcast: expected values of shape [{index.counts.numel()}, C], one row per instance, "
            f"got {tuple(values.shape)}"
        )
    check_same_device("instance_broadcast", values=values, index=index.rows)
    return resolve("instance_broadcast", backend, {"eager": instance_broadcast_reference})(values, index)


def instance_mean(x: Tensor, ids: Tensor | InstanceIndex, *, backend: str | None = None) -> Tensor:
    """Give every pixel the mean of its instance in its own image.

    Linear, symmetric and idempotent, so its gradient is the same operation.

    Args:
        x: [B, C, H, W] floating point.
        ids: [B, H, W] or [B, 1, H, W] integer instance ids, or their `instance_index`.
        backend: implementation by name; None chooses.

    Returns:
        Tensor like `x` in shape, dtype and memory format; sums are taken in float32 at least.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device, saying expected and got.
        BackendError: the named backend cannot run.
    """
    index = ids if isinstance(ids, InstanceIndex) else instance_index(ids, backend=backend)
    _check("instance_mean", x, index)
    return resolve("instance_mean", backend, {"eager": instance_mean_reference})(x, index)


def _check(op: str, x: Tensor, index: InstanceIndex) -> None:
    check_image(op, "x", x)
    check_same_device(op, x=x, ids=index.rows)
    expected = (x.shape[0], *x.shape[2:])
    if tuple(index.rows.shape) != expected:
        raise ValueError(f"{op}: expected ids of shape {expected} to go with x, got {tuple(index.rows.shape)}")
