"""Batches on the training device; on a GPU the next one is copied while a step runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from typing import TypeVar

import torch

from hdgan.data import LoaderBatch
from hdgan.families.common.batch import Batch

_Item = TypeVar("_Item")
_Started = TypeVar("_Started")


def prefetched(
    loader: Iterable[LoaderBatch],
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Iterator[Batch]:
    """Move what a loader yields to the device, in the loader's order.

    On a GPU, the batch after the yielded one is already being copied and converted on a separate stream. One more batch
    has therefore been read than used. A resumed run counts its own steps, and reads that batch again. On a CPU nothing
    is read ahead.

    Args:
        loader: batches; for a GPU in pinned memory, since copies from other memory wait for the step.
        device: where the step runs.
        memory_format: of photos and input images.
        prepare: called for each batch on a GPU, on the separate stream: what waits for the GPU waits for no step.
    """
    if device.type != "cuda":
        for batch in loader:
            yield Batch.from_loader(batch, device, memory_format)
        return
    stream = torch.cuda.Stream(device, priority=-1)  # urgent: the host may wait for what it prepares

    uploads = one_ahead(loader, lambda batch: _upload(batch, device, memory_format, stream, prepare))
    yield from starmap(_arrived, uploads)  # unlike a loop, it holds no reference to a batch while a step uses it


def one_ahead(items: Iterable[_Item], start: Callable[[_Item], _Started]) -> Iterator[_Started]:
    """Start items in order, and yield each once the next one has started too.

    If an item cannot be read or started, the one before it is yielded first, and then the error is raised.
    """
    started: list[_Started] = []
    try:
        for item in items:
            started.append(start(item))
            if len(started) == 2:
                yield started.pop(0)
    except Exception:
        yield from started
        raise
    yield from started


def _upload(
    batch: LoaderBatch,
    device: torch.device,
    memory_format: torch.memory_format,
    stream: torch.cuda.Stream,
    prepare: Callable[[Batch], Batch],
) -> tuple[Batch, torch.cuda.Event]:
    """Queue a batch's copies and conversions on `stream`; the event is their end."""
    with torch.cuda.stream(stream):
        return prepare(Batch.from_loader(batch, device, memory_format)), stream.record_event()


def _arrived(inputs: Batch, uploaded: torch.cuda.Event) -> Batch:
    """Make the current stream wait for a batch, whose memory is kept until that stream is done with it."""
    current = torch.cuda.current_stream(inputs.photo.device)
    current.wait_event(uploaded)
    for tensor in inputs.tensors():
        tensor.record_stream(current)
    return inputs
