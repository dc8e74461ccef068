"""The training loop: all stages of a run, from the first step or from a checkpoint."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from hdgan.checkpoints import checkpoint_path, list_steps
from hdgan.data import make_loader
from hdgan.data.sampler import explained_worker_death
from hdgan.devices import enough_memory
from hdgan.errors import DataError, HdganError, TrainingError
from hdgan.families.common.batch import Batch
from hdgan.seeding import derive_seed, seed_everything
from hdgan.training import setup
from hdgan.training.agreement import require_same_data, require_same_plan, require_same_run
from hdgan.training.checkpoint import remove_leftovers, save_checkpoint
from hdgan.training.config import TrainConfig
from hdgan.training.datasets import RunData, open_data, resolved
from hdgan.training.distributed import World, join_world
from hdgan.training.gradients import Gradients, make_gradients
from hdgan.training.interrupt import StopRequest, whole
from hdgan.training.logs import Metrics, ProgressDisplay
from hdgan.training.pictures import Examples, mean_styles
from hdgan.training.prefetch import prefetched
from hdgan.training.report import write_report
from hdgan.training.run_folder import claim_folder, locked, remove_samples, write_description
from hdgan.training.schedule import Stage, plan, stage_at
from hdgan.training.state import StageState
from hdgan.training.validation import Validation, is_better, record_name


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    finished: bool
    """False if it was asked to stop before the end."""
    step: int
    total_steps: int
    report: Path | None
    """None in processes other than the main one."""


@dataclass
class Run:
    """What all stages of a run share."""

    config: TrainConfig
    world: World
    data: RunData
    stages: list[Stage]
    perceptual: nn.Module | None
    validation: Validation
    metrics: Metrics | None
    display: ProgressDisplay
    stop: StopRequest
    console: Console
    all_end: bool = False
    """Whether every process knows that one cannot take the step."""
    within_update: bool = False
    """Whether some of the weights may have moved and others not."""


def train(config: TrainConfig, *, resume: bool = False, console: Console | None = None) -> Outcome:
    """Train a run to its end, or to Ctrl-C, which saves first.

    Args:
        config: the run; `out` is its folder.
        resume: continue the run in that folder from its latest checkpoint.
        console: where progress goes.

    Returns:
        How far it came, and where the report lies.

    Raises:
        HdganError: options, data or checkpoint that cannot be used, a disk that is full, a loss that is not finite.
    """
    console = console or Console()
    with setup.torch_settings(config), join_world(config.device) as world, contextlib.ExitStack() as closing:
        if not world.is_main:
            console = Console(quiet=True)
        with world.peers.together():
            run, state = _prepare(config, resume, world, console, closing)
        config = run.config
        while (current := stage_at(run.stages, state.step)) is not None:
            if state.stage != current:
                with enough_memory(setup.too_large(config, current, world)):
                    state = StageState(config, current, world.device, state.model)
            if not _train_stage(run, state):
                break
        total = run.stages[-1].last_step
    report = write_report(config.out) if world.is_main else None
    outcome = Outcome(finished=state.step == total, step=state.step, total_steps=total, report=report)
    _say_goodbye(console, config, outcome)
    return outcome


def _prepare(
    config: TrainConfig, resume: bool, world: World, console: Console, closing: contextlib.ExitStack
) -> tuple[Run, StageState]:
    """Everything before the first step; what is to be closed after the last one goes to `closing`."""
    require_same_run(world.peers, config, resume=resume)
    claim_folder(config, resume)
    setup.check_processes(config, world)
    with world.first_of_node():
        data = open_data(config, console, world.size)
    require_same_data(world.peers, data.train_pairs)
    given, config = config, resolved(config, data)  # config.json is what was asked for
    stages = plan(config, len(data.train_pairs))
    require_same_plan(world.peers, config, stages)
    setup.check_stages(config, stages, world)
    if world.is_main:
        setup.check_pictures(config, data, stages[0])
    perceptual = setup.load_perceptual(config, world)
    validation = Validation(config, data, world.device)
    if world.is_main:
        closing.enter_context(locked(config.out))
        claim_folder(config, resume)  # another run may have come and gone in the meantime
    state = setup.first_state(config, stages, world, console, resume)
    metrics = None
    if world.is_main:
        remove_leftovers(config.out)
        if resume:
            setup.tidy(config, state)
        else:
            remove_samples(config.out)
        write_description(given, world, len(data.train_pairs))
        metrics = Metrics(config.out, state.step)
        closing.callback(metrics.close)
    total = stages[-1].last_step
    if resume:
        message = f"resuming {config.out} after step {state.step} of {total}"
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    display = closing.enter_context(ProgressDisplay(console, total, state.step))
    stop = closing.enter_context(StopRequest())
    return Run(config, world, data, stages, perceptual, validation, metrics, display, stop, console), state


def _report_so_far(run: Path, console: Console) -> None:
    """Write the report while training goes on, which a fault of the report must not end."""
    try:
        write_report(run)
    except Exception as error:
        message = f"the report could not be written ({error!r}); training goes on; later: hdgan report {run}"
        console.print(message, markup=False, highlight=False, soft_wrap=True)


def _train_stage(run: Run, state: StageState) -> bool:
    """Train one stage to its end; False if asked to stop."""
    config, stage, world = run.config, state.stage, run.world
    criterion = config.loss.criterion(run.perceptual, state.pool)
    gradients = make_gradients(config, state, criterion)
    examples = Examples(run.data.validation(stage.config.size), config, world.device, run.data.palette)
    references = Examples(run.data.reference(stage.config.size), config, world.device)
    clock = _Clock(stage.config.batch_size)
    stopping = False
    with (
        _steps_kept(run, state, references),
        enough_memory(setup.too_large(config, stage, world)),
        explained_worker_death(),
        contextlib.closing(_batches(run, state)) as batches,  # or readers would live for as long as a traceback does
    ):
        while state.step < stage.last_step:
            inputs = _next(batches)
            with whole():
                losses, stopping = _step(run, state, criterion.names, gradients, inputs)
            clock.tick()
            log = config.log
            if world.is_main:
                run.display.update(state.step, stage.name, losses, clock.images_per_second)
            finished = state.step == stage.last_step
            if run.metrics is not None and (state.step % log.metrics_every == 0 or finished):
                lr = stage.learning_rate(state.step_in_stage - 1)
                run.metrics.write(
                    state.step, stage.name, {**losses, "lr": lr, "images_per_second": clock.images_per_second}
                )
            pause = time.monotonic()
            if world.is_main and (state.step % log.samples_every == 0 or finished):
                examples.write(state.ema.model, config.out / "samples" / stage.name, state.step, log.samples)
            scheduled = state.step % log.checkpoint_every == 0 or finished
            if scheduled or stopping:
                _checkpoint(run, state, examples, references, measure=scheduled)
            clock.skip(time.monotonic() - pause)
            if stopping:
                break
    return state.step == stage.last_step and not stopping


def _batches(run: Run, state: StageState) -> Generator[Batch, None, None]:
    """This process's share of all batches that a stage still has to go through."""
    config, stage, world = run.config, state.stage, run.world
    seed = derive_seed(config.seed, run.stages.index(stage))
    loader = make_loader(
        run.data.training(stage.config.size, seed),
        start=state.step_in_stage * stage.config.batch_size,
        stop=stage.steps * stage.config.batch_size,
        batch=stage.config.batch_size // world.size,
        seed=seed,
        rank=world.rank,
        world=world.size,
        workers=config.data.workers,
        pin_memory=world.device.type == "cuda",
    )
    yield from prefetched(loader, world.device, config.format_on(world.device))


def _next(batches: Iterator[Batch]) -> Batch | HdganError:
    """The next batch, or why there is none: the other processes have to know before this one ends."""
    try:
        with explained_worker_death():
            return next(batches)
    except HdganError as error:
        return error


def _gradients_of(run: Run, stage: Stage, gradients: Gradients, inputs: Batch | HdganError) -> Tensor | HdganError:
    """The losses of a batch, or why there are none, which the other processes have to know as well."""
    if isinstance(inputs, HdganError):
        return inputs
    try:
        with enough_memory(setup.too_large(run.config, stage, run.world)):
            return gradients(inputs)
    except HdganError as error:
        return error


def _step(
    run: Run, state: StageState, names: Sequence[str], gradients: Gradients, inputs: Batch | HdganError
) -> tuple[dict[str, float], bool]:
    """One optimizer step over this process's share of the batch; returns losses, and whether any process shall stop.

    Raises:
        HdganError: this or another process has no batch, or not the memory for its gradients; or a loss is not finite.
            The weights are as they were.
    """
    config, stage, world = run.config, state.stage, run.world
    seed_everything(config.seed, world.rank, state.step)
    state.set_learning_rate(stage.learning_rate(state.step_in_stage))
    found = _gradients_of(run, stage, gradients, inputs)
    parts = torch.zeros(len(names), device=world.device) if isinstance(found, HdganError) else found
    # Before the gradients, which a process without a batch does not have.
    told = parts.new_tensor([run.stop.requested, isinstance(found, HdganError)])
    *values, stop, lost = world.mean(torch.cat([parts, told])).tolist()
    run.all_end = lost > 0
    if isinstance(found, HdganError):
        raise found
    if lost:
        raise DataError("another process cannot take this step; its own message says why")
    losses = dict(zip(names, values, strict=True))
    _require_finite(run, state.step + 1, losses)
    world.average_gradients([*state.g_parameters, *state.d_parameters])
    run.within_update = True
    state.update(config.optim.clip)
    run.within_update = False
    return losses, stop > 0


def _require_finite(run: Run, step: int, values: dict[str, float]) -> None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    steps = list_steps(run.config.out)
    last = (
        f"the last good checkpoint is {checkpoint_path(run.config.out, steps[-1])}: resume from it with a lower "
        "learning rate, --optim.clip 1, or float32"
        if steps
        else "there is no checkpoint yet: lower the learning rate, or set --optim.clip 1"
    )
    stage = stage_at(run.stages, step - 1)
    assert stage is not None
    raise TrainingError(f"step {step} of stage {stage.name}: {', '.join(wrong)}; {last}")


def _checkpoint(run: Run, state: StageState, examples: Examples, references: Examples, measure: bool) -> None:
    """Measure and save on the main process while the others wait.

    A checkpoint that is there only because of a request to stop is not measured: whoever asked may not wait long, and
    so the same checkpoints are measured as in an undisturbed run, and the same one is best.
    """
    if run.world.is_main:
        _require_finite_weights(run, state)
        if measure:
            _measure(run, state, examples)
        tensors = mean_styles(state.ema.model, references, run.config.log.style_images)
        save_checkpoint(run.config.out, run.config, state, tensors)
        if measure and state.step < run.stages[-1].last_step:  # `train` itself writes the last report
            _report_so_far(run.config.out, run.console)
    run.world.barrier()


def _require_finite_weights(run: Run, state: StageState) -> None:
    largest = torch.stack([parameter.detach().abs().max() for parameter in state.model.parameters()]).max()
    _require_finite(run, state.step, {"the largest weight": float(largest)})


@contextlib.contextmanager
def _steps_kept(run: Run, state: StageState, references: Examples) -> Iterator[None]:
    """Save what has been trained before an error that the user can mend ends the run.

    A picture that cannot be read, for training or for samples, a reader that is killed or memory that does not suffice
    for gradients leaves the state as the last step made it. Not so a TrainingError: it says that the state is not worth
    saving, or that it cannot be saved.
    Whoever has asked to stop gets that instead of the error, which may be of his asking.
    """
    try:
        yield
    except TrainingError:
        raise
    except HdganError:
        main = run.world.is_main and state.step_in_stage > 0 and not run.within_update
        try:
            if main:
                _save_last_step(run, state, references)
        finally:
            if run.all_end:  # torchrun ends all processes soon after the first one ends
                run.world.barrier()
        if not (main and run.stop.requested and run.world.size == 1):
            raise


def _save_last_step(run: Run, state: StageState, references: Examples) -> None:
    out = run.config.out
    if state.step not in list_steps(out):
        _require_finite_weights(run, state)
        try:
            with enough_memory("the mean styles need more memory"):
                tensors = mean_styles(state.ema.model, references, run.config.log.style_images)
        except HdganError:  # the same picture or memory, it may be; the next checkpoint has them again
            tensors = {}
        save_checkpoint(out, run.config, state, tensors)
    message = f"saved after step {state.step}: hdgan-train --resume {out} goes on from there"
    run.console.print(message, markup=False, highlight=False, soft_wrap=True)


def _measure(run: Run, state: StageState, examples: Examples) -> None:
    values = run.validation(state.ema.model, examples)
    _require_finite(run, state.step, values)
    metric, chosen_by = run.config.log.best, run.validation.chosen_by
    value = values[record_name(metric)]
    # A value by another metric or scorer, or of other pictures, says nothing of this one: a resume can change them.
    if state.best is None or state.best_by != chosen_by or is_better(metric, value, state.best[1]):
        state.best, state.best_by = (state.step, value), chosen_by
    if run.metrics is not None:
        run.metrics.write(state.step, state.stage.name, values)


class _Clock:
    """Pictures a second over the last steps, without the time spent on samples and checkpoints."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._last = time.monotonic()
        self._seconds = 0.0

    def tick(self) -> None:
        now = time.monotonic()
        took = now - self._last
        self._seconds = took if self._seconds == 0 else 0.95 * self._seconds + 0.05 * took
        self._last = now

    def skip(self, seconds: float) -> None:
        self._last += seconds

    @property
    def images_per_second(self) -> float:
        return self._batch_size / self._seconds if self._seconds else 0.0


def _say_goodbye(console: Console, config: TrainConfig, outcome: Outcome) -> None:
    if outcome.report is None:
        return
    if outcome.finished:
        state = "finished"
        sources = "--label LABELS" if config.model.n_labels else "--input PICTURES"
        sources += " --instance INSTANCES" if config.model.instances else ""
        what_next = f"generate with: hdgan generate {config.out} {sources} --out FOLDER"
    else:
        state = f"stopped after step {outcome.step} of {outcome.total_steps}"
        what_next = f"resume with: hdgan-train --resume {config.out}"
    for line in (f"{state}; report: {outcome.report.resolve()}", what_next):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
