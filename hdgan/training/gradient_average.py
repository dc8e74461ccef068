"""Gradients averaged over all processes while the backward pass goes on.

An all-reduce has to begin in the same order in every process. Buckets are therefore sent in one fixed order, each as
soon as it and all buckets before it are complete, whatever order the backward pass takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from hdgan.sharding.world import World, explained_backend_errors

BUCKET_ELEMENTS = 2**23
"""Gradients are sent in buckets of about this many elements: enough for full bandwidth, few enough to begin early."""


class GradientAverage:
    """Replaces the gradients of some parameters by their averages over all processes.

    While they are sent, copies of all gradients are in memory, as in DistributedDataParallel.

    Args:
        world: the processes.
        parameters: in the order in which the backward pass is expected to reach them. The order only decides how much
            of the sending is hidden.
    """

    def __init__(self, world: World, parameters: Sequence[Tensor]) -> None:
        self._size = world.size
        self._buckets = list(_buckets(parameters)) if world.size > 1 else []
        self._bucket_of = {parameter: k for k, bucket in enumerate(self._buckets) for parameter in bucket}
        self._expected = [len(bucket) for bucket in self._buckets]
        self._missing = list(self._expected)
        self._sent: list[tuple[Tensor, dist.Work]] = []

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Send buckets while the backward passes inside complete the gradients."""
        handles = [parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in self._bucket_of]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def finish(self) -> None:
        """Send what has not been sent, and put the averages in the place of the gradients.

        Without `during_backward`, as after the replay of a CUDA graph, this sends all of them. A process that lacks
        some gradients sends zeros for those.

        Raises:
            OtherProcessError: one has ended.
        """
        while len(self._sent) < len(self._buckets):
            self._send()
        for bucket, (flat, work) in zip(self._buckets, self._sent, strict=True):
            with explained_backend_errors():
                work.wait()
            flat /= self._size
            for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                if parameter.grad is not None:
                    parameter.grad.copy_(part.view_as(parameter))
        # A parameter that gets no gradient, as a dead bias, is not waited for from the second step on.
        self._expected = [sum(p.grad is not None for p in bucket) for bucket in self._buckets]
        self._missing = list(self._expected)
        self._sent = []

    def _arrived(self, parameter: Tensor) -> None:
        self._missing[self._bucket_of[parameter]] -= 1
        while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] <= 0:
            self._send()

    def _send(self) -> None:
        """Begin the all-reduce of the next bucket."""
        bucket = self._buckets[len(self._sent)]
        parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket]
        flat = torch.cat(parts)
        with explained_backend_errors():
            work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((flat, work))


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
