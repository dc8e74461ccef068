"""The training step: forward, backward, average, update. To change the step, change this file.

for each of n micro batches:   where a penalty (R1) is due:   grad D += 1/n dR/dD
                               L_G, L_D = criterion(networks, micro batch)
                               grad D += 1/n dL_D/dD        grad G += 1/n dL_G/dG
over all processes:            average the losses and the gradients
if all losses are finite:      clip; Adam for G (with E) and for D, each at its rate
after the update:              the probability of augmentation adapts; one power iteration of spectral norms
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
from hdgan.families.common.losses import Criterion, Penalty
from hdgan.families.common.model import ImageModel
from hdgan.families.common.train_config import TrainConfig
from hdgan.models.blocks import recomputing
from hdgan.models.spectral_norm import refine
from hdgan.seeding import seed_everything
from hdgan.sharding.world import World
from hdgan.training.checkpoint import require_finite
from hdgan.training.cuda_graph import Gradients, GraphedGradients, compile_networks
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


def accumulate_penalty(
    penalty: Penalty, model: ImageModel, micro_batch: Batch, d_parameters: list[Tensor], rounds: int
) -> Tensor:
    """Add the gradients of the penalty on one of several micro batches to those of D; returns its value, [1] float32.

    Its graph is walked and freed before the criterion builds another one. It is taken in float32, without autocast:
    second derivatives in bfloat16 have hardly a correct digit.
    """
    value = penalty(model, micro_batch)
    (penalty.weight * value / rounds).backward(inputs=d_parameters)
    return value.detach()[None]


def forward_backward(
    config: TrainConfig,
    state: StageNetworks,
    criterion: Criterion,
    batch: Batch,
    penalty: Penalty | None = None,
    last_backward: AbstractContextManager[None] | None = None,
) -> Tensor:
    """Replace the gradients of all trained parameters by those of a batch; the part of a step that a GPU can replay.

    Args:
        config: of the run; recomputes unless `recompute` is False.
        state: the networks.
        criterion: their losses.
        batch: this process's share.
        penalty: that of the criterion, in a step where it is due.
        last_backward: entered for the backward passes of the last micro batch, which complete the gradients.

    Returns:
        [number of values] float32, averaged over the micro batches: the losses of the criterion; the penalty, if it is
        due; IMAGE_STATISTICS, if the run's health is watched.
    """
    state.model.zero_grad()
    micro_batches = list(batch.split(state.stage.config.micro_batch))
    rounds, device = len(micro_batches), batch.photo.device
    losses: list[Tensor] = []
    for number, micro_batch in enumerate(micro_batches, start=1):
        parts = []
        with recomputing(config.recompute is not False):
            if penalty is not None:
                parts.append(accumulate_penalty(penalty, state.model, micro_batch, state.d_parameters, rounds))
            with config.autocast(device):
                objectives = criterion(state.model, micro_batch)
        with (last_backward if number == rounds else None) or nullcontext():
            accumulate_gradients(objectives, state.g_parameters, state.d_parameters, rounds)
        if config.health != "off":
            parts.append(image_statistics(objectives.fake, micro_batch.photo))
        losses.append(torch.cat([objectives.parts, *parts]) / rounds)
        del objectives  # what is left of its graph must not live through the next forward pass
    return sum(losses[1:], losses[0])


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
    names: tuple[str, ...]
    losses: Readback
    learning_rates: dict[str, float]
    pool: list[tuple[Tensor, Tensor]]
    """The pool of fakes before the step."""


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
        self.criterion = config.loss.criterion(perceptual, state.pool, state.augmentation)
        self._watched: dict[str, list[Tensor]] = {}
        self._statistics: tuple[str, ...] = ()
        if config.health != "off":
            networks = {"grad_g": state.g_parameters, "grad_d": state.d_parameters}
            self._watched = {name: parameters for name, parameters in networks.items() if parameters}
            self._statistics = (*IMAGE_STATISTICS, *self._watched)
        self.average = average = GradientAverage(world, state.in_backward_order)
        compile_networks(config.compile, state.model, perceptual)
        gradients = partial(forward_backward, config, state, self.criterion)
        # Without a reference to self, which would keep the networks of a stage alive beside those of the next one.
        self._gradients: Gradients = (
            GraphedGradients(gradients, state, required=config.cuda_graphs is True)
            if config.cuda_graphs and world.device.type == "cuda"
            else lambda batch, penalty=None: gradients(batch, penalty, average.during_backward())
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
        pool = list(self.state.pool.pairs)
        try:
            losses = self._averaged_gradients(batch)
        except HdganError:
            self.state.pool.pairs = pool
            raise
        self.finish()
        self._update(losses, pool)

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
        values = dict(zip(last.names, last.losses.tolist(), strict=True))
        try:
            require_finite(config.out, state.stage, last.step, values)
        except TrainingError:
            state.step, state.pool.pairs = last.step - 1, last.pool
            raise
        self.updating = True
        state.ema.update(last.step_in_stage)
        self.updating = False
        statistics = {name: values.pop(name) for name in self._statistics}
        if self.criterion.penalty is not None:  # the log repeats its last value until it is due again
            name = self.criterion.penalty.name
            state.penalty = values.get(name, state.penalty)
            values |= {} if state.penalty is None else {name: state.penalty}
        self.on_result(StepResult(last.step, values, last.learning_rates, statistics))

    @property
    def _penalty(self) -> Penalty | None:
        """The penalty if it is due in the next step."""
        penalty = self.criterion.penalty
        return penalty if penalty is not None and penalty.due(self.state.step_in_stage) else None

    @property
    def _names(self) -> tuple[str, ...]:
        """Of the values that the next step reads back: losses, then statistics."""
        due = self._penalty
        return (*self.criterion.names, *([] if due is None else [due.name]), *self._statistics)

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
            failure, losses = losses, torch.zeros(len(self._names) - len(self._watched), device=world.device)
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
                return self._gradients(batch, self._penalty)
        except HdganError as error:
            return error

    def _update(self, losses: Tensor, pool: list[tuple[Tensor, Tensor]]) -> None:
        """Clip the gradients and step the optimizers; none of this moves anything if a loss is not finite."""
        config, state = self.config, self.state
        rates = state.learning_rates
        logged = {"lr": rates["g"]} | ({"lr_d": rates["d"]} if rates.get("d", rates["g"]) != rates["g"] else {})
        queued = _Unfinished(state.step + 1, state.step_in_stage, self._names, Readback(losses), logged, pool)
        found_inf = (~losses.isfinite().all()).to(torch.float32)
        self.updating = True
        if config.optim.clip is not None:
            for parameters in (state.g_parameters, state.d_parameters):
                torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip)
        for name, optimizer in state.optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name]
            step_unless(found_inf, optimizer)
        if config.augment.adaptive:
            signs = losses[self.criterion.names.index("d_sign")]
            state.augmentation.adapt(signs, state.stage.config.batch_size, found_inf)
        refine(state.model)
        state.step += 1
        self._unfinished = queued
        self.updating = False
