"""instance_index: sparse instance ids -> dense rows, computed once and reused by every instance-wise op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hdgan.ops._backend import choose, launch
from hdgan.ops._checks import as_map
from hdgan.ops._register import folding, register

TABLE_SIZE = 4096 + 2**16
"""How many ids the GPU kernels count in a table: all of 16 bits, and a few negative ones that mean no instance."""


class InstanceIndex(NamedTuple):
    """A batch of instance maps as dense rows of one table. N is the number of instances in the whole batch.

    Its tensors belong together. For a part of a batch, create an index of those images instead of slicing this one. On
    a CPU, kernels raise where tensors do not fit each other; on a GPU, where that would take a wait, results are wrong.

    Rows are ordered by image, then by id: image b owns the rows offsets[b] to offsets[b + 1].
    """

    rows: Tensor
    """[B, H, W] int32: the table row of each pixel's instance."""
    offsets: Tensor
    """[B + 1] int64: first row of each image, and N at the end."""
    ids: Tensor
    """[N] original ids, in their original dtype."""
    counts: Tensor
    """[N] int64: pixels of each instance, at least 1."""


def instance_index_reference(ids: Tensor) -> InstanceIndex:
    dtype, sign = ids.dtype, -(2**63)
    # PyTorch sorts many unsigned integers only as bytes, so the others become int64 of the same order.
    if dtype == torch.uint64:
        ids = ids.view(torch.int64) ^ sign
    elif dtype in (torch.uint16, torch.uint32):
        ids = ids.to(torch.int64)
    rows, originals, counts, offsets = [], [], [], [0]
    for image in ids:  # [H, W]
        unique, inverse, count = torch.unique(image, return_inverse=True, return_counts=True)
        rows.append(inverse.to(torch.int32) + offsets[-1])
        originals.append(unique)
        counts.append(count)
        offsets.append(offsets[-1] + unique.numel())
    unique = torch.cat(originals)
    unique = (unique ^ sign).view(dtype) if dtype == torch.uint64 else unique.to(dtype)
    return InstanceIndex(torch.stack(rows), torch.tensor(offsets, device=ids.device), unique, torch.cat(counts))


def _forward(ids: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "cpu":
        # There are at most as many instances as pixels. Memory that is never touched costs nothing.
        made = _results(ids, ids.dtype, ids.numel())
        launch("instance_index", "fwd", backend, ids.device, ids.contiguous(), *made, None, None, None, 0)
        return _cut(*made, int(made[1][-1]), ids.dtype)
    batch, pixels = ids.shape[0], ids[0].numel()
    if pixels < 2**31:
        values = _for_table(ids).contiguous()
        made = _results(ids, values.dtype, batch * min(pixels, TABLE_SIZE))
        table = torch.zeros(batch, TABLE_SIZE, dtype=torch.int32, device=ids.device)
        sizes = torch.zeros(batch + 1, dtype=torch.int32, device=ids.device)
        first_id = 0 if ids.dtype == torch.uint64 else -(2**15) if ids.dtype == torch.int16 else 2**16 - TABLE_SIZE
        launch(
            "instance_index", "fwd", backend, ids.device, values, *made, table, torch.empty_like(table), sizes, first_id
        )
        n = int(made[1][-1])  # waits for the GPU, as the number of instances must be known here
        if n >= 0:
            return _cut(*made, n, ids.dtype)
    return instance_index_reference(ids)  # ids beyond the table, or too many pixels to count in it


def _results(ids: Tensor, dtype: torch.dtype, most: int | torch.SymInt) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised rows, offsets, ids and counts of at most `most` instances."""
    return (
        torch.empty(ids.shape, dtype=torch.int32, device=ids.device),
        torch.empty(ids.shape[0] + 1, dtype=torch.int64, device=ids.device),
        torch.empty(most, dtype=dtype, device=ids.device),
        torch.empty(most, dtype=torch.int64, device=ids.device),
    )


def _cut(
    rows: Tensor, offsets: Tensor, unique: Tensor, counts: Tensor, n: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return rows, offsets, unique[:n].to(dtype, copy=True), counts[:n].clone()


def _for_table(ids: Tensor) -> Tensor:
    """As int32 or int64, which are what the GPU kernels read."""
    if ids.dtype in (torch.int32, torch.int64):
        return ids
    if ids.dtype == torch.uint64:
        return ids.view(torch.int64)  # values beyond int64 become negative, which is outside the table too
    return ids.to(torch.int64 if ids.dtype == torch.uint32 else torch.int32)


def _fake(ids: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = torch.library.get_ctx().new_dynamic_size()
    return _results(ids, ids.dtype, n)


_instance_index = register(
    "instance_index(Tensor ids, str backend) -> (Tensor rows, Tensor offsets, Tensor ids, Tensor counts)",
    _forward,
    _fake,
    batched=folding((None,), lambda _: 0),
)


def instance_index(ids: Tensor, *, backend: str | None = None) -> InstanceIndex:
    """Number the instances of a batch of instance maps.

    Args:
        ids: [B, H, W] or [B, 1, H, W], any integer dtype, any values (sparse, negative, beyond 16 bits). The same id in
            two images is two instances.
        backend: implementation by name; None chooses.

    The cpu, cuda and triton backends do not sort: they look up an id once for each run of equal ids. On a GPU the ids
    must then lie between -4096 and 65535, or be int16. Others are sorted by PyTorch. The number of instances depends on
    the data, so the host waits for the GPU once.

    Returns:
        The rows of all pixels, and for each row its id and count.

    Raises:
        TypeError: ids are not integers.
        ValueError: ids have another shape or no pixels.
        BackendError: the named backend cannot run.
    """
    ids = as_map("instance_index", "ids", ids)
    chosen = choose("instance_index", backend, ids)
    if chosen == "eager":
        return instance_index_reference(ids)
    return InstanceIndex(*_instance_index(ids, chosen))
