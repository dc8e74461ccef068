"""instance_index: sparse instance ids -> dense rows, computed once and reused by every instance-wise op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hdgan.ops._backend import resolve
from hdgan.ops._checks import as_map


class InstanceIndex(NamedTuple):
    """A batch of instance maps as dense rows of one table. N is the number of instances in the whole batch.

    Rows are ordered by image, then by id: image b owns the rows offsets[b] to offsets[b + 1].
    """

    rows: Tensor
    """[B, H, W] int32: the table row of each pixel's instance."""
    offsets: Tensor
    """[B + 1] int64: first row of each image, and N at the end."""
    ids: Tensor
    """[N] original ids, in the dtype they came in."""
    counts: Tensor
    """[N] int64: pixels of each instance, at least 1."""


def instance_index_reference(ids: Tensor) -> InstanceIndex:
    rows, originals, counts, offsets = [], [], [], [0]
    for image in ids:  # [H, W]
        unique, inverse, count = torch.unique(image, return_inverse=True, return_counts=True)
        rows.append(inverse.to(torch.int32) + offsets[-1])
        originals.append(unique)
        counts.append(count)
        offsets.append(offsets[-1] + unique.numel())
    return InstanceIndex(
        torch.stack(rows),
        torch.tensor(offsets, device=ids.device),
        torch.cat(originals),
        torch.cat(counts),
    )


def instance_index(ids: Tensor, *, backend: str | None = None) -> InstanceIndex:
    """Number the instances of a batch of instance maps.

    Args:
        ids: [B, H, W] or [B, 1, H, W], any integer dtype, any values (sparse, negative, beyond 16 bits). The same id in
            two images is two instances.
        backend: implementation by name; None chooses.

    Raises:
        TypeError: ids are not integers.
        ValueError: ids have another shape or no pixels.
        BackendError: the named backend cannot run.
    """
    ids = as_map("instance_index", "ids", ids)
    return resolve("instance_index", backend, {"eager": instance_index_reference})(ids)
