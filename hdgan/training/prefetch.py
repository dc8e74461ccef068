"""Batches on the training device, the next one on its way while a step runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields

import torch

from hdgan.data import Batch
from hdgan.training.step import Inputs


def prefetched(
    loader: Iterable[Batch], device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
) -> Iterator[Inputs]:
    """Move what a loader yields to the device, in the loader's order.

    On a GPU the batch after the one that is yielded is already being copied and converted, on a stream of its own:
    batches in pinned memory are copied while the step computes. So one batch more has been read than used; a resumed
    run counts its own steps, and reads that batch again. On a CPU nothing is read ahead.

    Args:
        loader: Batches; for a GPU in pinned memory, or copies wait for the step.
        device: Where the step runs.
        memory_format: Of photos and input pictures.
    """
    if device.type != "cuda":
        for batch in loader:
            yield Inputs.from_loader(batch, device, memory_format)
        return
    stream = torch.cuda.Stream(device)
    ahead: tuple[Inputs, torch.cuda.Event] | None = None
    for batch in loader:
        following = _upload(batch, device, memory_format, stream)
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = following
    if ahead is not None:
        yield _arrived(*ahead)


def _upload(
    batch: Batch, device: torch.device, memory_format: torch.memory_format, stream: torch.cuda.Stream
) -> tuple[Inputs, torch.cuda.Event]:
    """Queue a batch's copies and conversions on `stream`; the event is their end."""
    with torch.cuda.stream(stream):
        return Inputs.from_loader(batch, device, memory_format), stream.record_event()


def _arrived(inputs: Inputs, uploaded: torch.cuda.Event) -> Inputs:
    """Let the current stream wait for a batch, and keep its memory until that stream is done with it."""
    current = torch.cuda.current_stream(inputs.photo.device)
    current.wait_event(uploaded)
    for field in fields(inputs):
        tensor = getattr(inputs, field.name)
        if tensor is not None:
            tensor.record_stream(current)
    return inputs
