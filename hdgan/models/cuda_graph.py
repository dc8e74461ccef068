"""CUDA graphs of what networks compute: one launch for all of their kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from hdgan.devices import is_out_of_memory

T = TypeVar("T")

WARM_UP = 3
"""Runs before a capture, in which libraries choose their algorithms."""


class CaptureError(RuntimeError):
    """What has just run cannot be captured."""


def capture(
    function: Callable[[], T],
    model: nn.Module,
    device: torch.device,
    warmed_up: Callable[[], object] = lambda: None,
    pool: Any = None,
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Capture a function of tensors that stay where they are.

    The function may draw noise from PyTorch's generator of the GPU: a replay reads its seed and offset as they are
    then, and advances it as the function itself would.

    Args:
        function: what is captured. It waits for the GPU nowhere.
        model: the networks that it runs.
        device: a GPU.
        warmed_up: called between the warm-up and the capture.
        pool: the memory of another graph, `graph.pool()`, which this one shares. The two must not run at once, and
            tensors that one of them leaves to the other have to be held.

    Returns:
        The graph, and the result of the function. Every replay overwrites its tensors; the capture itself computes
        nothing.

    Raises:
        CaptureError: the function runs, but cannot be captured.
    """
    side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    with without_trace(model, device):
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function()
            warmed_up()
        current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # The capture is of this thread alone: a loader's thread goes on pinning memory, which a global one forbids.
    try:
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            result = function()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise CaptureError(str(error).splitlines()[0]) from error
    return graph, result


@contextmanager
def without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore what the runs inside change in addition to gradients: random generators, and the model's running
    statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for buffer, value in before:
        buffer.copy_(value)
