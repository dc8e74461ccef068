"""encode_labels: integer label and instance maps -> the networks' input, one-hot classes and instance boundaries.

`label_planes` makes the same planes without writing them: one code per pixel, which `label_conv2d` reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from hdgan.ops._backend import choose, launch
from hdgan.ops._checks import as_map, check_same_device, format_of
from hdgan.ops._overrides import is_taken
from hdgan.ops._register import folding, register

MAX_LABELS = 2**24
"""Kernels count the elements of a row of pixels in 32 bits."""


def boundary_map(ids: Tensor) -> Tensor:
    """Mark the pixels whose id differs from one of their four neighbours (paper section 3.3).

    Args:
        ids: [B, H, W] integer.

    Returns:
        [B, H, W] bool.
    """
    if is_taken((ids,)):
        return handle_torch_function(boundary_map, (ids,), ids)
    edge = torch.zeros_like(ids, dtype=torch.bool)
    across = ids[:, :, 1:] != ids[:, :, :-1]
    down = ids[:, 1:] != ids[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge


def encode_labels_reference(
    label: Tensor,
    ids: Tensor | None,
    n_labels: int,
    dontcare: int | None,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    classes = torch.arange(n_labels, device=label.device).view(1, -1, 1, 1)
    planes = label.long().unsqueeze(1) == classes  # [B, n_labels, H, W]
    if dontcare is not None and 0 <= dontcare < n_labels:
        planes[:, dontcare] = False
    if ids is not None:
        planes = torch.cat([planes, boundary_map(ids).unsqueeze(1)], dim=1)
    return planes.to(dtype, memory_format=memory_format)


def _forward(label: Tensor, ids: Tensor | None, *options: Any) -> Tensor:
    y = _fake(label, ids, *options)
    _, dontcare, _, _, backend = options
    ids = None if ids is None else ids.contiguous()
    launch("encode_labels", "fwd", backend, label.device, label.contiguous(), ids, y, dontcare)
    return y


def _fake(label: Tensor, ids: Tensor | None, *options: Any) -> Tensor:
    n_labels, _, dtype, channels_last, _ = options
    batch, height, width = label.shape
    shape = batch, n_labels + (ids is not None), height, width
    return torch.empty(shape, dtype=dtype, device=label.device, memory_format=format_of(channels_last))


_encode_labels = register(
    "encode_labels(Tensor label, Tensor? ids, SymInt n_labels, SymInt dontcare, ScalarType dtype, bool channels_last, "
    "str backend) -> Tensor",
    _forward,
    _fake,
    batched=folding((0, 0), lambda _: 0),
)


class LabelPlanes(NamedTuple):
    """The planes of `encode_labels` as one code per pixel; see `label_planes`."""

    codes: Tensor
    """[B, H, W] int32: the class, n_labels where a pixel has none; and n_labels + 1 more on a boundary.

    `label_conv2d` raises ValueError for other numbers on a CPU. Kernels of GPUs trust them.
    """
    n_labels: int
    """Number of classes."""
    edges: bool
    """Whether there is a boundary plane."""

    @property
    def channels(self) -> int:
        """Number of planes."""
        return self.n_labels + int(self.edges)

    def dense(
        self, dtype: torch.dtype = torch.float32, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Tensor:
        """The planes themselves, [B, channels, H, W] of zeros and ones."""
        classes = torch.arange(self.n_labels, device=self.codes.device, dtype=torch.int32).view(1, -1, 1, 1)
        codes = self.codes.unsqueeze(1)
        planes = codes % (self.n_labels + 1) == classes
        if self.edges:
            planes = torch.cat([planes, codes > self.n_labels], dim=1)
        return planes.to(dtype, memory_format=memory_format)


def label_planes_reference(label: Tensor, ids: Tensor | None, n_labels: int, dontcare: int | None) -> Tensor:
    label = label.long()  # a uint64 beyond int64 becomes negative, which is no class either
    known = (label >= 0) & (label < n_labels)
    if dontcare is not None:
        known &= label != dontcare
    codes = label.where(known, n_labels)
    if ids is not None:
        codes = codes + boundary_map(ids) * (n_labels + 1)
    return codes.to(torch.int32)


def _planes_forward(label: Tensor, ids: Tensor | None, *options: Any) -> Tensor:
    codes = _planes_fake(label, ids, *options)
    n_labels, dontcare, backend = options
    ids = None if ids is None else ids.contiguous()
    launch("encode_labels", "codes", backend, label.device, label.contiguous(), ids, codes, n_labels, dontcare)
    return codes


def _planes_fake(label: Tensor, ids: Tensor | None, *options: Any) -> Tensor:
    return torch.empty(label.shape, dtype=torch.int32, device=label.device)


_label_planes = register(
    "label_planes(Tensor label, Tensor? ids, SymInt n_labels, SymInt dontcare, str backend) -> Tensor",
    _planes_forward,
    _planes_fake,
    batched=folding((0, 0), lambda _: 0),
)


def _as_maps(op: str, label: Tensor, ids: Tensor | None, n_labels: int) -> tuple[Tensor, Tensor | None]:
    """Check the maps of an op and return them as [B, H, W]."""
    label = as_map(op, "label", label)
    if ids is not None:
        ids = as_map(op, "ids", ids)
        check_same_device(op, label=label, ids=ids)
        if ids.shape != label.shape:
            raise ValueError(f"{op}: expected ids of shape {tuple(label.shape)}, that of label, got {tuple(ids.shape)}")
    if not 1 <= n_labels <= MAX_LABELS:
        raise ValueError(f"{op}: expected 1 <= n_labels <= {MAX_LABELS}, got {n_labels}")
    return label, ids


def _dontcare(dontcare: int | None, n_labels: int) -> int:
    """As kernels take it: -1 belongs to no class anyway."""
    return dontcare if dontcare is not None and 0 <= dontcare < n_labels else -1


def label_planes(
    label: Tensor, ids: Tensor | None, n_labels: int, *, dontcare: int | None = None, backend: str | None = None
) -> LabelPlanes:
    """Encode a label map as `encode_labels` does, without making the planes: one code per pixel stands for all of them.

    Args:
        label: [B, H, W] or [B, 1, H, W], any integer dtype.
        ids: instance ids in the same shapes; or a bool map, which is the boundary plane itself; or None for no boundary
            plane.
        n_labels: number of classes.
        dontcare: label that belongs to no class, or None.
        backend: implementation by name; None chooses.

    Returns:
        What `label_conv2d` reads, several times if need be.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device, or n_labels not in 1 … 2^24.
        BackendError: the named backend cannot run.
    """
    if is_taken((label, ids)):
        given: dict[str, Any] = {"dontcare": dontcare, "backend": backend}
        return handle_torch_function(label_planes, (label, ids), label, ids, n_labels, **given)
    op = "label_planes"
    if ids is not None and ids.dtype == torch.bool:
        _, edges = _as_maps(op, label, ids.int(), n_labels)
        assert edges is not None
        codes = label_planes(label, None, n_labels, dontcare=dontcare, backend=backend).codes
        return LabelPlanes(codes + edges * (n_labels + 1), n_labels, True)
    label, ids = _as_maps(op, label, ids, n_labels)
    chosen = choose(op, backend, label)
    if chosen == "eager":
        codes = label_planes_reference(label, ids, n_labels, dontcare)
    else:
        codes = _label_planes(label, ids, n_labels, _dontcare(dontcare, n_labels), chosen)
    return LabelPlanes(codes, n_labels, ids is not None)


def encode_labels(
    label: Tensor,
    ids: Tensor | None,
    n_labels: int,
    *,
    dontcare: int | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    backend: str | None = None,
) -> Tensor:
    """Encode a label map as one plane per class, and with `ids` one more plane for the instance boundaries.

    A label outside 0 … n_labels - 1 sets no plane, and neither does `dontcare`. `hdgan.data` checks that labels are
    valid, where the file's name is known. Looking at them here would stall a GPU.

    Args:
        label: [B, H, W] or [B, 1, H, W], any integer dtype.
        ids: instance ids in the same shapes, or None for no boundary plane.
        n_labels: number of classes.
        dontcare: label that belongs to no class, or None.
        dtype: floating-point dtype of the result.
        memory_format: contiguous or channels_last.
        backend: implementation by name; None chooses.

    Returns:
        [B, n_labels (+ 1), H, W] of zeros and ones.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or memory format, or n_labels not in 1 … 2^24.
        BackendError: the named backend cannot run.
    """
    op = "encode_labels"
    label, ids = _as_maps(op, label, ids, n_labels)
    if not dtype.is_floating_point:
        raise TypeError(f"{op}: expected a floating-point dtype of the result, got {dtype}")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(f"{op}: expected memory_format contiguous_format or channels_last, got {memory_format}")
    chosen = choose(op, backend, label, dtype)
    if chosen == "eager":
        return encode_labels_reference(label, ids, n_labels, dontcare, dtype, memory_format)
    channels_last = memory_format == torch.channels_last
    return _encode_labels(label, ids, n_labels, _dontcare(dontcare, n_labels), dtype, channels_last, chosen)
