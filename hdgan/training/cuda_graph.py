"""A cheaper forward and backward half of a step: replayed from a CUDA graph, with compiled networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from hdgan.config.options import option, option_off
from hdgan.errors import ConfigError
from hdgan.families import ImageModel
from hdgan.families.common.batch import Batch
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.cuda_graph import CaptureError, capture
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
        required: whether a step that cannot be captured is an error. Otherwise a warning says so, and the steps run as
            they are.
    """

    def __init__(self, gradients: Gradients, state: StageNetworks, required: bool = True) -> None:
        self._gradients = gradients
        self._state = state
        self._required = required
        self._impossible = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Replace the gradients of all trained parameters by those of this batch; returns the losses.

        Raises:
            ConfigError: a graph is required, and the step cannot be captured.
        """
        if self._graph is None and not self._impossible:
            self._graph = self._capture(batch)
        if self._graph is None or _shapes(batch) != _shapes(self._batch):
            return self._gradients(batch)
        for static, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
            if static is not None and new is not None:
                static.copy_(new)
        for parameter, gradient in self._grads:
            parameter.grad = gradient
        self._graph.replay()
        return self._losses.clone()

    def _capture(self, batch: Batch) -> torch.cuda.CUDAGraph | None:
        self._batch = Batch(*(None if t is None else t.clone() for t in _tensors(batch)))  # type: ignore[arg-type]
        model = self._state.model
        try:
            graph, self._losses = capture(
                lambda: self._gradients(self._batch),
                model,
                batch.photo.device,
                model.zero_grad,  # or the gradients of the warm-up would live beside those of the graph
            )
        except CaptureError as error:
            reason, remedy = f"a CUDA graph cannot hold this step ({error})", option_off("cuda_graphs")
            if self._required:
                raise ConfigError(f"{reason}: use {remedy}") from error
            warnings.warn(f"{reason}, so it runs without one; {remedy} does not try", stacklevel=2)
            self._impossible = True
            return None
        self._grads = [(p, p.grad) for p in (*self._state.g_parameters, *self._state.d_parameters)]
        return graph


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
