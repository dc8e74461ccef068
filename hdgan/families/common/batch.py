"""What the losses of every family take and return: a batch on the device, and objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

    @staticmethod
    def from_loader(sample: data.LoaderBatch, device: torch.device, memory_format: torch.memory_format) -> Batch:
        """Move what the loader yields to the device; the photo arrives in 8 bits and becomes float there."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        photo = sample["photo"].to(device, non_blocking=True).float() / 127.5 - 1
        source = moved(sample.get("input"))
        if source is not None:
            source = source.contiguous(memory_format=memory_format)
        photo = photo.contiguous(memory_format=memory_format)
        return Batch(photo, moved(sample.get("label")), source, moved(sample.get("ids")))

    def split(self, size: int | None) -> Iterator[Batch]:
        """Cut into micro batches of `size` images; None leaves the batch whole."""
        parts = [
            (None if t is None else t.split(size or len(t))) for t in (self.photo, self.label, self.source, self.ids)
        ]
        assert parts[0] is not None
        for i in range(len(parts[0])):
            yield Batch(*(None if part is None else part[i] for part in parts))  # type: ignore[arg-type]

    def instances(self) -> InstanceIndex:
        """The areas that E's features are averaged over: the instances, or the classes where there are none."""
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
