"""The training step: forward, backward, average, update. To change the step, change this file.

for each of n micro batches:   L_G, L_D = criterion(networks, micro batch)
                               grad D += 1/n dL_D/dD        grad G += 1/n dL_G/dG
over all processes:            average the losses and the gradients
update, if all losses are finite:   clip; Adam for G (with E) and for D
one step later:                read the losses; moving average of G and E

On a GPU, nothing waits for the step that has just been queued. The device itself holds an update back whose losses are
not finite. The host reads the losses while the next step already runs, and only then finishes the step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hdgan.devices import enough_memory
from hdgan.errors import DataError, HdganError, TrainingError
from hdgan.families.common.batch import Batch, Objectives
from hdgan.families.common.losses import Criterion
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.blocks import recomputing
from hdgan.seeding import seed_everything
from hdgan.training.checkpoint import require_finite
from hdgan.training.cuda_graph import GraphedGradients, compile_networks
from hdgan.training.distributed import World
from hdgan.training.gradient_average import GradientAverage
from hdgan.training.health import IMAGE_STATISTICS, gradient_norm, image_statistics
from hdgan.training.interrupt import StopRequest, defer_sigchld
from hdgan.training.readback import Readback
from hdgan.training.setup import too_large
from hdgan.training.state import StageNetworks, StageState, cast_convolutions, move


def accumulate_gradients(
    objectives: Objectives, g_parameters: list[Tensor], d_parameters: list[Tensor], rounds: int
) -> None:
    """Add the gradients of one of several micro batches, each objective's to its own networks alone.

    G comes last: its backward pass walks through all that is left of the graph, and frees it.
    """
    if objectives.discriminator is not None:
        (objectives.discriminator / rounds).backward(inputs=d_parameters, retain_graph=True)
    (objectives.generator / rounds).backward(inputs=g_parameters)


def forward_backward(
    config: TrainConfig,
    state: StageNetworks,
    criterion: Criterion,
    batch: Batch,
    last_backward: AbstractContextManager[None] | None = None,
) -> Tensor:
    """Replace the gradients of all trained parameters by those of a batch; the part of a step that a GPU can replay.

    Args:
        config: of the run; recomputes unless `recompute` is False.
        state: the networks.
        criterion: their losses.
        batch: this process's share.
        last_backward: entered for the backward passes of the last micro batch, which complete the gradients.

    Returns:
        [len(criterion.names)] float32: the losses, averaged over the micro batches. If the run's health is watched,
        IMAGE_STATISTICS follow them.
    """
    state.model.zero_grad()
    micro_batches = list(batch.split(state.stage.config.micro_batch))
    rounds, device = len(micro_batches), batch.photo.device
    watched = config.health != "off"
    losses = torch.zeros(len(criterion.names) + watched * len(IMAGE_STATISTICS), device=device)
    for number, micro_batch in enumerate(micro_batches, start=1):
        with config.autocast(device), recomputing(config.recompute is not False):
            objectives = criterion(state.model, micro_batch)
        with (last_backward if number == rounds else None) or nullcontext():
            accumulate_gradients(objectives, state.g_parameters, state.d_parameters, rounds)
        statistics = [image_statistics(objectives.fake, micro_batch.photo)] if watched else []
        losses = losses + torch.cat([objectives.parts, *statistics]) / rounds
        del objectives  # what is left of its graph must not live through the next forward pass
    return losses


def step_unless(found_inf: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Step a fused optimizer where `found_inf` is 0; where it is 1, neither weights nor moments change.

    The device decides. The attribute is the one by which `torch.amp.GradScaler` holds back an optimizer.

    Args:
        found_inf: scalar, float32, on the device of the parameters.
        optimizer: fused.
    """
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


@dataclass(frozen=True)
class StepResult:
    """What a step reports to the log."""

    step: int
    """Number of the step in the run, from 1."""
    losses: dict[str, float]
    """Losses of the whole batch by the names of the criterion."""
    learning_rates: dict[str, float]
    """Learning rates of the step by their names in metrics.jsonl."""
    statistics: dict[str, float]
    """What the watch on the run's health has measured, by their names in metrics.jsonl; empty if it is off."""


@dataclass(frozen=True)
class _Unfinished:
    """A step that has been queued, and whose losses are on their way from the device."""

    step: int
    step_in_stage: int
    losses: Readback
    learning_rates: dict[str, float]


class Trainer:
    """Takes the steps of one stage.

    A step has two halves. `train_step` queues forward pass, backward pass and Adam. `finish` waits for its losses,
    updates the moving average and reports the losses; the next `train_step` calls it once its own gradients are queued.
    Between the two, the weights are those of the last step, and the average is one step behind.

    Args:
        config: of the run, resolved, with the choices of the stage (`hdgan.training.step_choices`).
        state: of the stage; a step changes it.
        perceptual: network of the perceptual loss, if there is one.
        world: the processes that share each batch.
        stop: whether this process has been asked to stop.
        on_result: called with the result of each step once it is finished, in order.

    Attributes:
        updating: True from the first weight that a step changes to the last one.
        stopping: True once any process has been asked to stop.
        all_failed: True once every process knows that one of them could not take a step.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: StageState,
        perceptual: nn.Module | None,
        world: World,
        stop: StopRequest | None = None,
        on_result: Callable[[StepResult], None] = lambda _: None,
    ) -> None:
        self.config, self.state, self.world = config, state, world
        self.stop, self.on_result = stop or StopRequest(), on_result
        self.updating = self.stopping = self.all_failed = False
        if perceptual is not None:
            move(perceptual, config, world.device)
            cast_convolutions(perceptual, config)
        self.criterion = config.loss.criterion(perceptual, state.pool)
        networks = {"grad_g": state.g_parameters, "grad_d": state.d_parameters} if config.health != "off" else {}
        self._watched = {name: parameters for name, parameters in networks.items() if parameters}
        self._statistics = (*IMAGE_STATISTICS, *self._watched) if self._watched else ()
        self.average = average = GradientAverage(world, state.in_backward_order)
        compile_networks(config.compile, state.model, perceptual)
        gradients = partial(forward_backward, config, state, self.criterion)
        # Without a reference to self, which would keep the networks of a stage alive beside those of the next one.
        self._gradients: Callable[[Batch], Tensor] = (
            GraphedGradients(gradients, state, required=config.cuda_graphs is True)
            if config.cuda_graphs and world.device.type == "cuda"
            else lambda batch: gradients(batch, average.during_backward())
        )
        self._unfinished: _Unfinished | None = None

    def train_step(self, batch: Batch | HdganError) -> None:
        """Queue one optimizer step, and finish the one before.

        Args:
            batch: this process's share of the batch, or the reason why it has none.

        Raises:
            HdganError: this or another process has no batch, or not enough memory for its gradients.
            TrainingError: a loss of the step before is not finite. In both cases the weights are unchanged.
        """
        seed_everything(self.config.seed, self.world.rank, self.state.step)
        losses = self._averaged_gradients(batch)
        self.finish()
        self._update(losses)

    def finish(self) -> None:
        """Finish the last step, if it is unfinished: read its losses, update the moving average, report the losses.

        Raises:
            TrainingError: a loss is not finite. Weights, moments and average are those of the step before, and the step
                does not count.
        """
        with defer_sigchld():  # what has begun to finish is finished
            last, self._unfinished = self._unfinished, None
            if last is not None:
                self._finish(last)

    def _finish(self, last: _Unfinished) -> None:
        config, state = self.config, self.state
        names = self.criterion.names
        values = dict(zip((*names, *self._statistics), last.losses.tolist(), strict=True))
        try:
            require_finite(config.out, state.stage, last.step, values)
        except TrainingError:
            state.step = last.step - 1
            raise
        self.updating = True
        state.ema.update(last.step_in_stage)
        self.updating = False
        losses, statistics = ({name: values[name] for name in part} for part in (names, self._statistics))
        self.on_result(StepResult(last.step, losses, last.learning_rates, statistics))

    def _averaged_gradients(self, batch: Batch | HdganError) -> Tensor:
        """Replace the gradients by those of a batch, averaged over all processes; returns the averaged losses.

        A process that fails still takes part in every average, with zeros in place of what it lacks, since the others
        would wait for it. Then all of them learn that one has failed, before any weight changes.

        Raises:
            HdganError: this or another process has failed.
        """
        world, failure = self.world, None
        losses = self._try_gradients(batch)
        if isinstance(losses, HdganError):
            others = len(self._statistics) - len(self._watched)
            failure, losses = losses, torch.zeros(len(self.criterion.names) + others, device=world.device)
        self.average.finish()
        norms = [gradient_norm(parameters)[None].to(losses) for parameters in self._watched.values()]
        losses = world.mean(torch.cat([losses, *norms]))
        self.stopping, self.all_failed = world.any(self.stop.requested, failure is not None)
        if failure is not None:
            raise failure
        if self.all_failed:
            raise DataError("another process cannot take this step; its message says why")
        return losses

    def _try_gradients(self, batch: Batch | HdganError) -> Tensor | HdganError:
        """The losses of a batch once its gradients are taken, or the reason why there are none."""
        if isinstance(batch, HdganError):
            return batch
        try:
            with enough_memory(too_large(self.config, self.state.stage, self.world)):
                return self._gradients(batch)
        except HdganError as error:
            return error

    def _update(self, losses: Tensor) -> None:
        """Clip the gradients and step the optimizers; none of this moves anything if a loss is not finite."""
        config, state = self.config, self.state
        lr = state.stage.learning_rate(state.step_in_stage)
        rates = {name: lr * state.health.rates[name] for name in state.optimizers}
        logged = {"lr": rates["g"]}
        if rates.get("d", rates["g"]) != rates["g"]:
            logged["lr_d"] = rates["d"]
        queued = _Unfinished(state.step + 1, state.step_in_stage, Readback(losses), logged)
        found_inf = (~losses.isfinite().all()).to(torch.float32)
        self.updating = True
        if config.optim.clip is not None:
            for parameters in (state.g_parameters, state.d_parameters):
                torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip)
        for name, optimizer in state.optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name]
            step_unless(found_inf, optimizer)
        state.step += 1
        self._unfinished = queued
        self.updating = False
