"""The training loop: all stages of a run, from the first step or from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from hdgan.data.sampler import explained_worker_death
from hdgan.devices import enough_memory
from hdgan.errors import DivergenceError, HdganError
from hdgan.families.common.batch import Batch
from hdgan.families.common.train_config import LogConfig, TrainConfig
from hdgan.progress import print_lines
from hdgan.sharding.world import World, join_world
from hdgan.training.checkpoint import finish_saving, remove_leftovers
from hdgan.training.interrupt import StopRequest, defer_sigchld
from hdgan.training.logs import Metrics, OnMetrics, ProgressDisplay
from hdgan.training.report import write_report
from hdgan.training.rollback import require_rollback, roll_back
from hdgan.training.run_folder import claim_folder, locked, remove_samples, write_description
from hdgan.training.saving import Saver
from hdgan.training.schedule import Stage, stage_at
from hdgan.training.setup import RunSetup, first_state, prepare, too_large, torch_settings
from hdgan.training.state import StageState
from hdgan.training.step_choices import StepChoices, choose_steps
from hdgan.training.tracking import open_tracker, require_tracker
from hdgan.training.trainer import StepResult, Trainer
from hdgan.training.watch import Watch


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended."""

    finished: bool
    """False if it was asked to stop before the end."""
    step: int
    total_steps: int
    report: Path | None
    """None in processes other than the main one."""


def train(
    config: TrainConfig, *, resume: bool = False, console: Console | None = None, on_metrics: OnMetrics | None = None
) -> TrainResult:
    """Train a run to its end, or until Ctrl-C, which saves first.

    Args:
        config: the run; `out` is its folder.
        resume: continue the run in that folder from its latest checkpoint.
        console: where progress goes.
        on_metrics: called in the main process with the step (from 1), the name of the stage and the values of every
            record that metrics.jsonl gets: losses, learning rates and speed every `log.metrics_every` steps, and
            measurements on the validation images at each checkpoint. A run that goes back to a checkpoint takes
            steps again. What the function raises ends the run, which can be resumed from its latest checkpoint.

    Returns:
        How far it got, and where the report is.

    Raises:
        HdganError: options, data or checkpoint that cannot be used, a disk that is full, a loss that is not finite.
    """
    console = console or Console()
    with torch_settings(config), join_world(config.device) as world, ExitStack() as stack:
        if not world.is_main:
            console = Console(quiet=True)
        run, state, steps, metrics = _begin(config, resume, world, console, stack)
        if metrics is not None:
            metrics.on_metrics = on_metrics
        total = run.stages[-1].last_step
        if resume:
            print_lines(console, f"resuming {config.out} after step {state.step} of {total}")
        display = stack.enter_context(ProgressDisplay(console, total, state.step))
        stop = stack.enter_context(StopRequest())
        while (current := stage_at(run.stages, state.step)) is not None:
            with enough_memory(too_large(run.config, current, world)):
                if state.stage != current:
                    state = StageState(run.config, current, world.device, state.model, state.augmentation, state.health)
                trainer = Trainer(steps[current.name].applied(run.config), state, run.perceptual, world, stop)
            problem = _train_stage(run, trainer, metrics, display)
            stopping = trainer.stopping
            if problem is not None:
                health, failed_at = state.health, state.step
                del trainer, state  # which would need memory beside the networks of the checkpoint
                state = roll_back(run, health, problem, metrics)
                display.skip(state.step - failed_at)
            if stopping:
                break
    report = write_report(config.out) if world.is_main else None
    result = TrainResult(finished=state.step == total, step=state.step, total_steps=total, report=report)
    if metrics is not None and report is not None:
        if metrics.tracker is not None:
            metrics.tracker.finish(report, finished=result.finished)
        _print_end(console, run.config, result, report)
    return result


def _begin(
    config: TrainConfig, resume: bool, world: World, console: Console, stack: ExitStack
) -> tuple[RunSetup, StageState, dict[str, StepChoices], Metrics | None]:
    """Check and load what the run needs; the main process takes its folder, until the stack is left."""
    with world.rendezvous.share_failure():
        require_tracker(config)
        run = prepare(config, resume, world, console)
        if world.is_main:
            stack.enter_context(locked(config.out))
            claim_folder(config, resume)  # another run may have come and gone in the meantime
        state = first_state(run, resume)
        # A rollback may lead back into a stage that a resume finds finished.
        steps = choose_steps(run, 0 if config.health == "rollback" else state.step)
        if not world.is_main:
            return run, state, steps, None
        metrics = _open_folder(config, run, state, steps, resume)
        stack.callback(metrics.close)
        if metrics.tracker is not None:
            stack.enter_context(metrics.tracker)
        return run, state, steps, metrics


def _open_folder(
    given: TrainConfig, run: RunSetup, state: StageState, steps: Mapping[str, StepChoices], resume: bool
) -> Metrics:
    """Clean up the run's folder, write the description of the run with its config as given, and open its log."""
    remove_leftovers(given.out)
    if resume:
        finish_saving(given.out, run.config, state)
    else:
        remove_samples(given.out)
    photos = str(run.data.photo_kind) if given.data.photo == "stored" else None
    shown = {name: str(choices) for name, choices in steps.items()}
    write_description(given, run.world, len(run.data.train_pairs), shown, photos, run.data.classes, resume=resume)
    return Metrics(given.out, state.step, state.health.rollbacks, open_tracker(given, resume, run.console))


def _train_stage(
    run: RunSetup, trainer: Trainer, metrics: Metrics | None, display: ProgressDisplay
) -> DivergenceError | None:
    """Train one stage to its end, or until asked to stop; returns what the run has to go back from, if it has to."""
    try:
        _take_steps(run, trainer, metrics, display)
    except DivergenceError as problem:
        require_rollback(run, trainer.state.health, problem)
        return problem.with_traceback(None)  # whose frames hold the networks
    return None


def _take_steps(run: RunSetup, trainer: Trainer, metrics: Metrics | None, display: ProgressDisplay) -> None:
    config, world, state = run.config, run.world, trainer.state
    stage, log = state.stage, config.log
    saver = Saver(run, state, metrics, display)
    clock = _Clock(stage.config.batch_size)
    watch = Watch(run, state, metrics)
    trainer.on_result = partial(_log, stage, log, metrics, display, clock, watch)
    saver.begin()
    finished = False
    with (
        saver.keeping_last_step(trainer),
        enough_memory(too_large(trainer.config, stage, world)),
        explained_worker_death(),
        # Without closing, data workers would live for as long as the traceback of an error does.
        closing(run.batches(stage, state.step_in_stage, stage.steps, state.health.rollbacks)) as batches,
    ):
        while not (finished or trainer.stopping):
            batch = _next(batches)
            with defer_sigchld():
                trainer.train_step(batch)
            clock.tick()
            finished = state.step == stage.last_step
            samples = state.step % log.samples_every == 0 or finished
            scheduled = state.step % log.checkpoint_every == 0 or finished
            if samples or scheduled or trainer.stopping:
                trainer.finish()
            pause = time.monotonic()
            if world.is_main and samples:
                saver.write_samples()
            if scheduled or trainer.stopping:
                saver.checkpoint(measure=scheduled)
                finished = state.step == stage.last_step  # also if patience has run out
            clock.skip(time.monotonic() - pause)


def _log(
    stage: Stage,
    log: LogConfig,
    metrics: Metrics | None,
    display: ProgressDisplay,
    clock: _Clock,
    watch: Watch,
    result: StepResult,
) -> None:
    """Show, record and judge what a finished step reports."""
    display.update(result.step, stage.name, result.losses, clock.images_per_second)
    if metrics is not None and (result.step % log.metrics_every == 0 or result.step == stage.last_step):
        speed = {"images_per_second": clock.images_per_second}
        values = {**result.losses, **result.learning_rates, **result.statistics, **speed}
        metrics.write(result.step, stage.name, values)
    watch.judge(result)


def _next(batches: Iterator[Batch]) -> Batch | HdganError:
    """The next batch, or the reason why there is none, which the other processes need to know."""
    try:
        with explained_worker_death():
            return next(batches)
    except HdganError as error:
        return error


class _Clock:
    """Images per second over the last steps, excluding the time for samples and checkpoints."""

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


def _print_end(console: Console, config: TrainConfig, result: TrainResult, report: Path) -> None:
    if result.finished:
        state = "finished"
        sources = "--label LABELS" if config.model.n_labels else "--input IMAGES"
        sources += " --instance INSTANCES" if config.model.instances else ""
        what_next = f"generate with: hdgan generate {config.out} {sources} --out FOLDER"
    else:
        state = f"stopped after step {result.step} of {result.total_steps}"
        what_next = f"resume with: hdgan-train --resume {config.out}"
    print_lines(console, f"{state}; report: {report.resolve()}", what_next)
