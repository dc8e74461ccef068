"""What the losses of every family take and return: a batch on the device, and objectives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hdgan import data
from hdgan.ops import InstanceIndex, instance_index


@dataclass(frozen=True)
class Batch:
    """A micro batch on the training device. Maps stay integer: the networks look up their planes."""

    photo: Tensor  # [B, C, H, W] float in [-1, 1]
    label: Tensor | None  # [B, H, W] integer
    source: Tensor | None  # [B, C, H, W] float in [-1, 1], the input of A->B training
    ids: Tensor | None  # [B, H, W] integer
    indices: tuple[InstanceIndex, ...] | None = None  # of each micro batch, if made in advance by `indexed`

    @staticmethod
    def from_loader(sample: data.LoaderBatch, device: torch.device, memory_format: torch.memory_format) -> Batch:
        """Move what the loader yields to the device; 8-bit photos become float there."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        photo = data.photo_to_unit_range(sample["photo"].to(device, non_blocking=True))
        source = moved(sample.get("input"))
        if source is not None:
            source = source.contiguous(memory_format=memory_format)
        photo = photo.contiguous(memory_format=memory_format)
        return Batch(photo, moved(sample.get("label")), source, moved(sample.get("ids")))

    def split(self, size: int | None) -> Iterator[Batch]:
        """Cut into micro batches of `size` images; None leaves the batch whole."""
        size = size or len(self.photo)
        for i, photo in enumerate(self.photo.split(size)):
            images = slice(i * size, (i + 1) * size)
            label, source, ids = (None if t is None else t[images] for t in (self.label, self.source, self.ids))
            yield Batch(photo, label, source, ids, None if self.indices is None else (self.indices[i],))

    def indexed(self, size: int | None) -> Batch:
        """The same batch with the `instances` of its micro batches of `size` images. To make them waits for a GPU."""
        return replace(self, indices=tuple(part.instances() for part in self.split(size)))

    def tensors(self) -> Iterator[Tensor]:
        """All tensors of the batch."""
        given = (self.photo, self.label, self.source, self.ids)
        yield from (tensor for tensor in given if tensor is not None)
        for index in self.indices or ():
            yield from index

    def instances(self) -> InstanceIndex:
        """The areas that E's features are averaged over: the instances, or the classes where there are none."""
        if self.indices is not None:
            (index,) = self.indices
            return index
        areas = self.ids if self.ids is not None else self.label
        assert areas is not None
        return instance_index(areas)


@dataclass(frozen=True)
class Objectives:
    """What the networks of a step minimise, still attached to their graph, and its parts for the log."""

    generator: Tensor
    discriminator: Tensor | None
    """None for a family without D."""
    parts: Tensor
    """[number of losses] float32, detached: the losses that the criterion names, with their weights."""
    fake: Tensor
    """[B, ..., C, H, W] detached: G's images, for the watch on the run's health."""

    def with_parts(self, more: Sequence[Tensor]) -> Objectives:
        """The same objectives with further scalars for the log."""
        return replace(self, parts=torch.cat([self.parts, torch.stack(list(more))])) if more else self
