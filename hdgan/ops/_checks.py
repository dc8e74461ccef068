"""Argument checks that the ops share. Their messages say what was expected and what was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdgan.ops._torch_internals import is_mapping


def check_image(op: str, x: Tensor) -> None:
    """Require a non-empty floating-point [B, C, H, W] tensor."""
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of shape [B, C, H, W], got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{op}: expected x of a floating-point dtype, got {x.dtype}")
    if x.numel() == 0:
        raise ValueError(f"{op}: expected a non-empty x, got shape {tuple(x.shape)}")


def as_map(op: str, name: str, values: Tensor) -> Tensor:
    """Return an integer map as [B, H, W], from [B, H, W] or [B, 1, H, W]."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{op}: expected {name} of an integer dtype, got {values.dtype}")
    if values.dim() == 4 and values.shape[1] == 1:
        values = values.squeeze(1)
    if values.dim() != 3:
        raise ValueError(f"{op}: expected {name} of shape [B, H, W] or [B, 1, H, W], got {tuple(values.shape)}")
    if values.numel() == 0:
        raise ValueError(f"{op}: expected a non-empty {name}, got shape {tuple(values.shape)}")
    return values


def check_same_device(op: str, **tensors: Tensor | None) -> None:
    """Require all given tensors to be on the same device."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if len(given) > 1 and len({tensor.device for tensor in given.values()}) > 1:
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in given.items())
        raise ValueError(f"{op}: expected all tensors on the same device, got {found}")


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The memory format a result should have to match `x`."""
    if x.is_contiguous() or is_mapping() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def is_channels_last(x: Tensor) -> bool:
    """Whether a result should be channels_last to match `x`."""
    return memory_format_of(x) == torch.channels_last


def format_of(channels_last: bool) -> torch.memory_format:
    """The memory format that operators, whose arguments are plain values, hold as a flag."""
    return torch.channels_last if channels_last else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """`x` without gaps and in its memory format, as kernels read it."""
    return x.contiguous(memory_format=memory_format_of(x))


def empty_as(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised [B, C, H, W] in the dtype and memory format of `x`, on its device."""
    if memory_format_of(x) == torch.contiguous_format:
        return x.new_empty(tuple(shape))  # faster
    return torch.empty(tuple(shape), dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
