"""The gradients of one optimizer step, as PyTorch goes or replayed from a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Literal

import torch
from torch import Tensor, nn

from hdgan.families.common.batch import Batch, accumulate_gradients
from hdgan.families.common.losses import Criterion
from hdgan.models.blocks import recomputing
from hdgan.training.config import TrainConfig
from hdgan.training.state import StageNetworks, StageState

Gradients = Callable[[Batch], Tensor]
"""Replaces the gradients of all trained parameters by those of a batch; returns its losses."""


class StepGradients:
    """Leaves the gradients of a batch in the parameters.

    Args:
        config: of the run.
        state: of the stage.
        criterion: the losses.
    """

    def __init__(self, config: TrainConfig, state: StageNetworks, criterion: Criterion) -> None:
        self.config = config
        self.state = state
        self.criterion = criterion

    def __call__(self, batch: Batch) -> Tensor:
        """Replace the gradients of all trained parameters by those of this batch.

        Returns:
            [len(criterion.names)] float32: the losses, averaged over the micro batches.
        """
        state, device = self.state, batch.photo.device
        state.clear_gradients()
        micro_batches = list(batch.split(state.stage.config.micro_batch))
        parts = torch.zeros(len(self.criterion.names), device=device)
        for micro_batch in micro_batches:
            with self.config.autocast(device), recomputing(self.config.recompute):
                objectives = self.criterion(state.model, micro_batch)
            accumulate_gradients(objectives, state.g_parameters, state.d_parameters, len(micro_batches))
            parts += objectives.parts / len(micro_batches)
            del objectives  # what is left of its graph must not live through the next forward pass
        return parts


class GraphedGradients:
    """The same from a CUDA graph: one launch for the thousand kernels of a step.

    The graph holds for batches of the shapes of the first one; others go without, and take memory of their own. Noise
    may be drawn of PyTorch's own generator of the GPU: a replay takes its seed and offset as they are then and moves it
    on, as the step itself would.

    Args:
        gradients: what is captured. Its model has no encoder, whose tables change their size with the number of
            instances, and its criterion no pool.
    """

    WARM_UP = 3
    """Runs before the capture, in which libraries choose their algorithms."""

    def __init__(self, gradients: StepGradients) -> None:
        self._gradients = gradients
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Replace the gradients of all trained parameters by those of this batch; returns the losses."""
        if self._graph is None:
            self._capture(batch)
        if _shapes(batch) != _shapes(self._batch):
            return self._gradients(batch)
        for mine, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            mine.copy_(given)
        for parameter, gradient in self._grads:
            parameter.grad = gradient
        assert self._graph is not None
        self._graph.replay()
        return self._parts.clone()

    def _capture(self, batch: Batch) -> None:
        self._batch = Batch(*(None if t is None else t.clone() for t in _fields(batch)))  # type: ignore[arg-type]
        state, device = self._gradients.state, batch.photo.device
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        with without_trace(state.model, device):
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(self.WARM_UP):
                    self._gradients(self._batch)
                state.clear_gradients()  # or they would live beside those of the graph
            current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: that of the loader goes on pinning memory, which a global capture forbids.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            self._parts = self._gradients(self._batch)
        self._grads = [(p, p.grad) for p in (*state.g_parameters, *state.d_parameters)]
        self._graph = graph


@contextmanager
def without_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put back what runs inside change besides gradients: random generators, and the model's running statistics."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for buffer, value in before:
        buffer.copy_(value)


def _fields(batch: Batch) -> list[Tensor | None]:
    return [getattr(batch, field.name) for field in fields(batch)]


def _tensors(batch: Batch) -> list[Tensor]:
    return [tensor for tensor in _fields(batch) if tensor is not None]


def _shapes(batch: Batch) -> list[torch.Size | None]:
    return [None if tensor is None else tensor.shape for tensor in _fields(batch)]


def make_gradients(config: TrainConfig, state: StageState, criterion: Criterion) -> Gradients:
    """What a stage takes its gradients with, its networks compiled if the config says so.

    `setup.check_cuda_graphs` says whether a CUDA graph can hold its steps.
    """
    gradients = StepGradients(config, state, criterion)
    _compile(config.compile, state, criterion.perceptual)
    return GraphedGradients(gradients) if config.cuda_graphs else gradients


def _compile(mode: Literal["none", "default", "max-autotune"], state: StageState, perceptual: nn.Module | None) -> None:
    """Compile what is walked once a step.

    D is not: its graph is walked twice, each time for half of its gradients, and a compiled one would compute all.
    """
    if mode == "none":
        return
    torch.compiler.reset()  # what was compiled for the sizes of the stage before
    networks = [state.model.generator, state.model.encoder, perceptual]
    for network in networks:
        if network is not None:
            # Without Inductor's own CUDA graphs, which would be captured inside of ours.
            network.compile(mode="default" if mode == "default" else "max-autotune-no-cudagraphs")
