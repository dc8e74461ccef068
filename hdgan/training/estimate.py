"""What a stage needs, from shapes alone: its networks and one step, computed without any numbers.

PyTorch's fake tensors have shape, type and storage but no memory, so a step of any size takes seconds. They represent
tensors on a CPU. On a GPU, kernels keep the same tensors, and use additional workspaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from hdgan.data import sample_geometry
from hdgan.errors import ConfigError
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.losses import Criterion
from hdgan.families.common.pool import FakePool
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.blocks import recomputing
from hdgan.ops import InstanceIndex
from hdgan.training.datasets import RunData
from hdgan.training.memory import LayerMemory, saved_by_layer
from hdgan.training.schedule import Stage
from hdgan.training.state import StageNetworks
from hdgan.training.trainer import forward_backward

INSTANCES = 64
"""Assumed number of instances in an image; it depends on the data, and makes little difference."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class StageEstimate:
    """What a stage needs."""

    stage: Stage
    steps: int
    """Steps that remain."""
    size: tuple[int, int]
    """Width and height of its images; if they differ, those of the largest."""
    parameters: dict[str, int]
    """Of each network of the model."""
    trained: int
    """Parameters that are trained."""
    peak_bytes: int
    """Peak memory during a step: weights, averages, moments of the optimizers, activations, gradients."""
    layers: list[LayerMemory]
    """What a micro batch keeps between its forward and its backward pass."""

    @property
    def saved_bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)


class _Shapes(Batch):
    """A batch without content. The number of its instances, on which shapes depend, is made up."""

    def split(self, size: int | None) -> Iterator[Batch]:
        for part in super().split(size):
            yield _Shapes(part.photo, part.label, part.source, part.ids)

    def instances(self) -> InstanceIndex:
        batch, _, height, width = self.photo.shape
        return InstanceIndex(
            rows=torch.zeros(batch, height, width, dtype=torch.int32),
            offsets=torch.zeros(batch + 1, dtype=torch.int64),
            ids=torch.zeros(batch * INSTANCES, dtype=torch.int32),
            counts=torch.zeros(batch * INSTANCES, dtype=torch.int64),
        )


def estimate_stage(
    config: TrainConfig, stage: Stage, data: RunData, perceptual: nn.Module | None, done: int, processes: int = 1
) -> StageEstimate:
    """Find out what a stage needs, without training or allocating any of it.

    Args:
        config: of the run, resolved.
        stage: of its plan.
        data: its pairs.
        perceptual: network of its perceptual loss on the CPU, whose weights do not matter.
        done: steps of the run that have been taken.
        processes: that share each batch; the memory is that of one of them.

    Raises:
        ConfigError: this version of PyTorch does not have what estimates need.
    """
    try:
        from hdgan.training.peak_memory import FakeTensorMode, PeakMeter
    except ImportError as error:
        raise ConfigError(
            f"the memory of a step cannot be estimated with PyTorch {torch.__version__} ({error}): install a version "
            "that hdgan is tested with"
        ) from error
    size = max(sizes_of(stage, data), key=lambda size: size[0] * size[1])
    plain = replace(config, device="cpu", memory_format="contiguous", compile="none", cuda_graphs=False)
    with FakeTensorMode(allow_non_fake_inputs=True):  # those are the weights of `perceptual`
        state = StageNetworks(plain, stage, _CPU)
        # A pool as large as this is never full here: a full one draws random numbers, which fake tensors cannot hold.
        pool = FakePool(2 * stage.config.batch_size if config.optim.pool_size else 0)
        criterion = config.loss.criterion(perceptual, pool, Augmentation(config.augment, _CPU))
        inputs = _inputs(config, stage.config.batch_size // processes, size)
        layers = _layers(config, state, criterion, inputs)
        with PeakMeter() as meter:
            forward_backward(plain, state, criterion, inputs, criterion.penalty)
        generator = sum(p.nbytes for name, p in state.model.named_parameters() if not name.startswith("discriminator."))
        networks = [state.model, *([] if perceptual is None else [perceptual])]
        weights = generator + sum(p.nbytes for network in networks for p in network.parameters())  # with the average
        trained = [*state.g_parameters, *state.d_parameters]
        moments = 2 * sum(parameter.nbytes for parameter in trained)
        kept_fakes = sum(part.nbytes for pair in pool.pairs[:1] for part in pair) * config.optim.pool_size
        parameters = {
            name: sum(parameter.numel() for parameter in network.parameters())
            for name, network in state.model.named_children()
        }
    return StageEstimate(
        stage=stage,
        steps=stage.last_step - max(done, stage.first_step),
        size=size,
        parameters=parameters,
        trained=sum(parameter.numel() for parameter in trained),
        peak_bytes=meter.peak + weights + moments + kept_fakes,
        layers=layers,
    )


def sizes_of(stage: Stage, data: RunData) -> set[tuple[int, int]]:
    """The widths and heights of the images that a stage trains on."""
    return {sample_geometry(size, stage.config.size.training).size for size in data.train_sizes}


def _inputs(config: TrainConfig, batch: int, size: tuple[int, int]) -> Batch:
    model, (width, height) = config.model, size
    labels = model.n_labels > 0
    return _Shapes(
        photo=torch.zeros(batch, model.image_channels, height, width),
        label=torch.zeros(batch, height, width, dtype=torch.uint8) if labels else None,
        source=None if labels else torch.zeros(batch, model.input_channels, height, width),
        ids=torch.zeros(batch, height, width, dtype=torch.int32) if model.instances else None,
    )


def _layers(config: TrainConfig, state: StageNetworks, criterion: Criterion, inputs: Batch) -> list[LayerMemory]:
    """What a micro batch keeps for its backward pass."""
    networks = nn.ModuleDict(dict(state.model.named_children()))
    if criterion.perceptual is not None:
        networks["perceptual"] = criterion.perceptual
    micro_batch = next(iter(inputs.split(state.stage.config.micro_batch)))
    with config.autocast(_CPU), recomputing(config.recompute is not False):
        return saved_by_layer(lambda: criterion(state.model, micro_batch), networks)
