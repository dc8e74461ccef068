"""A cheaper forward and backward half of a step: replayed from a CUDA graph, with compiled networks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from hdgan.config.options import option, option_off
from hdgan.errors import ConfigError
from hdgan.families import ImageModel
from hdgan.families.common.batch import Batch
from hdgan.families.common.losses import Penalty
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.cuda_graph import CaptureError, capture
from hdgan.training.schedule import Stage
from hdgan.training.state import StageNetworks


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


class Gradients(Protocol):
    """Replaces the gradients of all trained parameters by those of a batch; returns its losses."""

    def __call__(self, batch: Batch, penalty: Penalty | None = None) -> Tensor: ...


@dataclass(frozen=True)
class _Captured:
    """The graph of a step, and the tensors that a replay writes."""

    graph: torch.cuda.CUDAGraph
    losses: Tensor
    grads: list[tuple[Tensor, Tensor | None]]


class GraphedGradients:
    """Gradients from a CUDA graph: one launch for the thousand kernels of a step.

    The graph is made for the shapes of the first batch. Batches of other shapes run without it, and need additional
    memory. Networks may draw noise from PyTorch's generator of the GPU: a replay reads its seed and offset as they are
    then, and advances it as the step itself would. Steps in which a penalty is due have a graph of their own, which
    shares its memory with the other one.

    Args:
        gradients: what is captured. The model has no encoder, whose tables change their size with the number of
            instances, and the criterion has no pool. `graph_obstacle` says so.
        state: the networks.
        required: whether a step that cannot be captured is an error. Otherwise a warning says so, and the steps run as
            they are.
    """

    def __init__(self, gradients: Gradients, state: StageNetworks, required: bool = True) -> None:
        self._gradients = gradients
        self._state = state
        self._required = required
        self._impossible = False
        self._batch: Batch | None = None
        self._captured: dict[bool, _Captured] = {}
        """By whether a penalty is due."""

    def __call__(self, batch: Batch, penalty: Penalty | None = None) -> Tensor:
        """Replace the gradients of all trained parameters by those of this batch; returns the losses.

        Raises:
            ConfigError: a graph is required, and the step cannot be captured.
        """
        if self._batch is None:
            self._batch = Batch(*(None if t is None else t.clone() for t in _tensors(batch)))  # type: ignore[arg-type]
        captured = self._graph_for(penalty) if _shapes(batch) == _shapes(self._batch) else None
        if captured is None:
            return self._gradients(batch, penalty)
        for static, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
            if static is not None and new is not None:
                static.copy_(new)
        for parameter, gradient in captured.grads:
            parameter.grad = gradient
        captured.graph.replay()
        return captured.losses.clone()

    def _graph_for(self, penalty: Penalty | None) -> _Captured | None:
        """The graph of a step with or without its penalty, captured in the first such step; None if none can be."""
        due = penalty is not None
        if due not in self._captured and not self._impossible:
            captured = self._capture(penalty)
            if captured is None:
                self._impossible = True
                self._captured.clear()
            else:
                self._captured[due] = captured
        return None if self._impossible else self._captured[due]

    def _capture(self, penalty: Penalty | None) -> _Captured | None:
        model, batch = self._state.model, self._batch
        assert batch is not None
        try:
            graph, losses = capture(
                lambda: self._gradients(batch, penalty),
                model,
                batch.photo.device,
                model.zero_grad,  # or the gradients of the warm-up would live beside those of the graph
                # Replays take turns. The losses and gradients of each are held, so the other does not overwrite them.
                pool=next((other.graph.pool() for other in self._captured.values()), None),
            )
        except CaptureError as error:
            reason, remedy = f"a CUDA graph cannot hold this step ({error})", option_off("cuda_graphs")
            if self._required:
                raise ConfigError(f"{reason}: use {remedy}") from error
            warnings.warn(f"{reason}, so it runs without one; {remedy} does not try", stacklevel=2)
            return None
        grads = [(p, p.grad) for p in (*self._state.g_parameters, *self._state.d_parameters)]
        return _Captured(graph, losses, grads)


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
