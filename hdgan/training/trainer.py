"""The training step: forward, backward, average, update. To change the step, change this file.

for each of n micro batches:   L_G, L_D = criterion(networks, micro batch)
                               grad D += 1/n dL_D/dD        grad G += 1/n dL_G/dG
over all processes:            average the losses and the gradients
update:                        clip; Adam for G (with E) and for D; moving average of G and E
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hdgan.devices import enough_memory
from hdgan.errors import DataError, HdganError
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import Criterion
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.blocks import recomputing
from hdgan.seeding import seed_everything
from hdgan.training.checkpoint import require_finite
from hdgan.training.cuda_graph import GraphedGradients, compile_networks
from hdgan.training.distributed import World
from hdgan.training.interrupt import StopRequest
from hdgan.training.setup import too_large
from hdgan.training.state import StageNetworks, StageState, move


def accumulate_gradients(
    objectives: Objectives, g_parameters: list[Tensor], d_parameters: list[Tensor], rounds: int
) -> None:
    """Add the gradients of one of several micro batches, each objective's to its own networks alone.

    G comes last: its backward pass walks through all that is left of the graph, and frees it.
    """
    if objectives.discriminator is not None:
        (objectives.discriminator / rounds).backward(inputs=d_parameters, retain_graph=True)
    (objectives.generator / rounds).backward(inputs=g_parameters)


def forward_backward(config: TrainConfig, state: StageNetworks, criterion: Criterion, batch: Batch) -> Tensor:
    """Replace the gradients of all trained parameters by those of a batch; the part of a step that a GPU can replay.

    Returns:
        [len(criterion.names)] float32: the losses, averaged over the micro batches.
    """
    state.model.zero_grad()
    micro_batches = list(batch.split(state.stage.config.micro_batch))
    rounds, device = len(micro_batches), batch.photo.device
    losses = torch.zeros(len(criterion.names), device=device)
    for micro_batch in micro_batches:
        with config.autocast(device), recomputing(config.recompute):
            objectives = criterion(state.model, micro_batch)
        accumulate_gradients(objectives, state.g_parameters, state.d_parameters, rounds)
        losses = losses + objectives.parts / rounds
        del objectives  # what is left of its graph must not live through the next forward pass
    return losses


@dataclass(frozen=True)
class StepResult:
    """What a step reports to the log."""

    losses: dict[str, float]
    """Losses of the whole batch by the names of the criterion."""
    learning_rates: dict[str, float]
    """Learning rates of the step by their names in metrics.jsonl."""
    stop: bool
    """Whether any process has been asked to stop."""


class Trainer:
    """Takes the steps of one stage.

    Args:
        config: of the run, resolved.
        state: of the stage; a step changes it.
        perceptual: network of the perceptual loss, if there is one.
        world: the processes that share each batch.
        stop: whether this process has been asked to stop.

    Attributes:
        updating: True from the first weight that a step changes to the last one.
        all_failed: True once every process knows that one of them could not take a step.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: StageState,
        perceptual: nn.Module | None,
        world: World,
        stop: StopRequest | None = None,
    ) -> None:
        self.config, self.state, self.world = config, state, world
        self.stop = stop or StopRequest()
        self.updating = self.all_failed = False
        if perceptual is not None:
            move(perceptual, config, world.device)
        self.criterion = config.loss.criterion(perceptual, state.pool)
        compile_networks(config.compile, state.model, perceptual)
        gradients = partial(forward_backward, config, state, self.criterion)
        self._gradients = GraphedGradients(gradients, state) if config.cuda_graphs else gradients

    def train_step(self, batch: Batch | HdganError) -> StepResult:
        """Take one optimizer step.

        Args:
            batch: this process's share of the batch, or the reason why it has none.

        Raises:
            HdganError: this or another process has no batch, or not enough memory for its gradients.
            TrainingError: a loss is not finite. In both cases the weights are unchanged.
        """
        config, state, world = self.config, self.state, self.world
        seed_everything(config.seed, world.rank, state.step)
        lr = state.stage.learning_rate(state.step_in_stage)
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["lr"] = lr

        losses, stop = self._average_losses(self._try_gradients(batch))
        require_finite(config.out, state.stage, state.step + 1, losses)
        world.average_gradients([*state.g_parameters, *state.d_parameters])

        self.updating = True
        if config.optim.clip is not None:
            for parameters in (state.g_parameters, state.d_parameters):
                torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip)
        for optimizer in state.optimizers.values():
            optimizer.step()
        state.ema.update(state.step_in_stage)
        state.step += 1
        self.updating = False
        return StepResult(losses, {"lr": lr}, stop)

    def _try_gradients(self, batch: Batch | HdganError) -> Tensor | HdganError:
        """The losses of a batch once its gradients are taken, or the reason why there are none."""
        if isinstance(batch, HdganError):
            return batch
        try:
            with enough_memory(too_large(self.config, self.state.stage, self.world)):
                return self._gradients(batch)
        except HdganError as error:
            return error

    def _average_losses(self, losses: Tensor | HdganError) -> tuple[dict[str, float], bool]:
        """Average losses over all processes; the second result says whether any of them has been asked to stop.

        A failure is sent with the losses: the others must know of it before they wait for gradients that never arrive.

        Raises:
            HdganError: this or another process has failed.
        """
        names = self.criterion.names
        values = torch.zeros(len(names), device=self.world.device) if isinstance(losses, HdganError) else losses
        flags = values.new_tensor([self.stop.requested, isinstance(losses, HdganError)])
        *means, stop, failures = self.world.mean(torch.cat([values, flags])).tolist()
        self.all_failed = failures > 0
        if isinstance(losses, HdganError):
            raise losses
        if failures:
            raise DataError("another process cannot take this step; its message says why")
        return dict(zip(names, means, strict=True)), stop > 0
