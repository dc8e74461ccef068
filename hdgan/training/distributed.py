"""Many GPUs and nodes: `torchrun -m hdgan train …` starts one process for each GPU, and they average their gradients.

Every process builds the same networks from the same seed, so nothing is broadcast; gradients are averaged by all-reduce
rather than by DistributedDataParallel, since a step takes the gradients of two networks from one graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from hdgan.devices import choose_device
from hdgan.errors import ConfigError

BUCKET_ELEMENTS = 2**25
"""Gradients are sent in buckets of about this many elements: large enough for bandwidth, small enough for memory."""

PATIENCE = timedelta(hours=3)
"""Of a process for the others. While the main one measures, renders scenes or writes to a slow disk, they wait in a
barrier; NCCL would end them after ten minutes. That a process has died torchrun sees at once; one that hangs, nobody
for as long."""


@dataclass(frozen=True)
class World:
    """This process among all processes of the run."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its average over all processes."""
        if self.size == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = self.mean(torch.cat([gradient.flatten() for gradient in bucket]))
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    @contextmanager
    def first_of_node(self) -> Iterator[None]:
        """Let one process of each node go first, so that the others find what it has made."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _make_current(device: torch.device) -> torch.device:
    """Let streams and graphs that name no device be of this one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _device_of(device: str, local_rank: int, size: int) -> str:
    """What an option means for one of many processes.

    A process that sees one GPU may have it for itself, or share it with all others of its machine by mistake. Which of
    the two it is only the user can say: by "cuda:0".
    """
    gpus = torch.cuda.device_count()
    if ":" in device:
        if device == "cuda:0" and gpus == 1:
            return device
        raise ConfigError(f"--device {device} would put all {size} processes on one device: give cuda, cpu or auto")
    if device == "cpu" or not torch.cuda.is_available():
        return device
    here = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
    if here > gpus:
        own = "; where each process sees a GPU of its own, --device cuda:0" if gpus == 1 else ""
        raise ConfigError(
            f"there are {here} processes on this machine, but PyTorch sees {gpus} GPUs: give torchrun "
            f"--nproc-per-node {gpus}, or --device cpu{own}"
        )
    return f"cuda:{local_rank}"


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; with "auto" and "cuda" each process takes the GPU of its local rank.
            "cuda:0" is for processes that see one GPU each.

    Raises:
        ConfigError: the device does not exist.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, _make_current(choose_device(device)))
        return
    chosen = _make_current(choose_device(_device_of(device, local_rank, size)))
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), size, chosen, local_rank)
    finally:
        dist.destroy_process_group()
