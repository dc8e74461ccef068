"""A cheaper forward and backward half of a step: replayed from a CUDA graph, with compiled networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from hdgan.config.options import option, option_off
from hdgan.devices import is_out_of_memory
from hdgan.errors import ConfigError
from hdgan.families import ImageModel
from hdgan.families.common.batch import Batch
from hdgan.families.common.train_config import TrainConfig
from hdgan.training.schedule import Stage
from hdgan.training.state import StageNetworks

Gradients = Callable[[Batch], Tensor]
"""Replaces the gradients of all trained parameters by those of a batch; returns its losses."""


def graph_obstacle(config: TrainConfig, stage: Stage, device: torch.device) -> str:
    """Why no CUDA graph can hold the steps of a stage, whose images have one size; empty if one can."""
    reasons = {
        f"{option('device')} {device.type} is not a GPU": device.type != "cuda",
        f"{option('model.feature_channels')} makes tables whose size depends on the instances": (
            config.model.feature_channels
        ),
        f"{option('optim.pool_size')} chooses images at random": config.optim.pool_size,
        f"{option(f'stages.{stage.name}.micro_batch')} accumulates gradients": stage.config.micro_batch is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class GraphedGradients:
    """Gradients from a CUDA graph: one launch for the thousand kernels of a step.

    The graph is made for the shapes of the first batch. Batches of other shapes run without it, and need additional
    memory. Networks may draw noise from PyTorch's generator of the GPU: a replay reads its seed and offset as they are
    then, and advances it as the step itself would.

    Args:
        gradients: what is captured. The model has no encoder, whose tables change their size with the number of
            instances, and the criterion has no pool. `graph_obstacle` says so.
        state: the networks.
    """

    WARM_UP = 3
    """Runs before the capture, in which libraries choose their algorithms."""

    def __init__(self, gradients: Gradients, state: StageNetworks) -> None:
        self._gradients = gradients
        self._state = state
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Replace the gradients of all trained parameters by those of this batch; returns the losses."""
        if self._graph is None:
            self._graph = self._capture(batch)
        if _shapes(batch) != _shapes(self._batch):
            return self._gradients(batch)
        for static, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
            if static is not None and new is not None:
                static.copy_(new)
        for parameter, gradient in self._grads:
            parameter.grad = gradient
        self._graph.replay()
        return self._losses.clone()

    def _capture(self, batch: Batch) -> torch.cuda.CUDAGraph:
        self._batch = Batch(*(None if t is None else t.clone() for t in _tensors(batch)))  # type: ignore[arg-type]
        model, device = self._state.model, batch.photo.device
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        with without_trace(model, device):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(self.WARM_UP):
                    self._gradients(self._batch)
                model.zero_grad()  # or these gradients would live beside those of the graph
            current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # The capture is of this thread alone: the loader's thread goes on pinning memory, which a global one forbids.
        with _explained_capture(), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            self._losses = self._gradients(self._batch)
        self._grads = [(p, p.grad) for p in (*self._state.g_parameters, *self._state.d_parameters)]
        return graph


@contextmanager
def _explained_capture() -> Iterator[None]:
    """Say what helps if a step that has just run cannot be captured."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        first = str(error).splitlines()[0]
        raise ConfigError(f"a CUDA graph cannot hold this step ({first}): use {option_off('cuda_graphs')}") from error


@contextmanager
def without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore what the runs inside change in addition to gradients: random generators, and the model's running
    statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for buffer, value in before:
        buffer.copy_(value)


def _tensors(batch: Batch) -> list[Tensor | None]:
    return [batch.photo, batch.label, batch.source, batch.ids]


def _shapes(batch: Batch) -> list[torch.Size | None]:
    return [None if tensor is None else tensor.shape for tensor in _tensors(batch)]


def compile_networks(
    mode: Literal["none", "default", "max-autotune"], model: ImageModel, perceptual: nn.Module | None
) -> None:
    """Compile the networks whose backward pass runs once per step.

    D is left out: its graph has two backward passes, each for half of its gradients, and a compiled D would compute all
    of them in each.
    """
    if mode == "none":
        return
    torch.compiler.reset()  # what was compiled for the sizes of the stage before
    for network in (model.generator, model.encoder, perceptual):
        if network is not None:
            # Without Inductor's own CUDA graphs, which would be captured inside ours.
            network.compile(mode="default" if mode == "default" else "max-autotune-no-cudagraphs")
