"""`hdgan-train --dry-run`: what a run will need, at once from shapes alone, then by a few timed steps of each stage."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from hdgan.config.options import option
from hdgan.data import make_loader
from hdgan.devices import enough_memory
from hdgan.errors import ConfigError
from hdgan.families.common.batch import Batch
from hdgan.progress import Progress, showing_progress
from hdgan.training import setup
from hdgan.training.config import TrainConfig
from hdgan.training.datasets import RunData, open_data, resolved
from hdgan.training.distributed import World, join_world
from hdgan.training.estimate import StageEstimate, estimate_stage
from hdgan.training.gradients import Gradients, make_gradients
from hdgan.training.prefetch import prefetched
from hdgan.training.run_folder import claim_folder
from hdgan.training.schedule import Stage, plan
from hdgan.training.state import StageState
from hdgan.training.validation import Validation
from hdgan.wording import count

TIMED_STEPS = 5
MOST_SECONDS = 20.0
"""Of timed steps in one stage, unless one step alone takes longer."""
LISTED_LAYERS = 8


@dataclass(frozen=True)
class StageTiming:
    """How long a stage takes."""

    estimate: StageEstimate
    step_seconds: float
    """Median."""
    gpu_bytes: int | None
    """The most that PyTorch took of a GPU's memory in a step; None on a CPU."""

    @property
    def seconds(self) -> float:
        return self.estimate.steps * self.step_seconds


def rehearse(config: TrainConfig, console: Console, *, resume: bool = False) -> list[StageTiming]:
    """Print what a run needs by its shapes; then take a few steps of every stage that is left, and print their time.

    Begins no run, and needs no weights of VGG19.

    Args:
        config: of the run.
        console: where the tables go.
        resume: the run in the config's folder is to be continued: estimate what is left of it.

    Raises:
        HdganError: options or data that cannot be used, or a stage that does not fit into memory.
    """
    with setup.torch_settings(config), join_world(config.device) as world:
        if world.size > 1:
            raise ConfigError(f"{option('dry_run')} is for one process: run it without torchrun")
        claim_folder(config, resume)
        setup.check_processes(config, world)
        data = open_data(config, console)
        config = resolved(config, data)
        stages = plan(config, len(data.train_pairs))
        setup.check_stages(config, stages, world)
        lacking: list[str] = []
        perceptual = setup.load_perceptual(config, World(0, 1, torch.device("cpu")), lacking.append)
        with enough_memory(
            f"the weights to begin with do not fit into the memory of {world.device}: choose another {option('device')}"
        ):
            done = _steps_done(config, stages, world, console, resume)
        left = [stage for stage in stages if stage.last_step > done]
        estimates = [estimate_stage(config, stage, data, perceptual, done) for stage in left]
        print_estimates(config, data, estimates, console)
        for reason in lacking:
            _say(console, f"{reason}. The steps below are timed with random weights in its place")
        setup.check_pictures(config, data, stages[0])
        Validation(config, data, world.device)  # a scorer that cannot be used shows here
        if perceptual is not None:
            perceptual.to(world.device, memory_format=config.format_on(world.device))  # type: ignore[call-overload]
        return _time_stages(config, estimates, data, perceptual, world, console)


def print_estimates(config: TrainConfig, data: RunData, estimates: list[StageEstimate], console: Console) -> None:
    """Print what is known before a step is taken: data, parameters, and a row for each stage."""
    _say(console, f"dry run: nothing is begun in {config.out}")
    training = count(len(data.train_pairs), "training picture")
    held_out = f"{count(len(data.val_pairs), 'picture')} of {data.val_phase} for samples and measurements"
    _say(console, f"data: {data.config.root}: {training}; {held_out}")
    if not estimates:
        _say(console, "no stage is left to train")
        return
    parts = ", ".join(f"{name} {number / 1e6:.1f} M" for name, number in estimates[-1].parameters.items())
    _say(console, f"parameters at the end: {parts}")
    table = _table("stage", "size", "batch", "trained", "steps", "memory", "kept")
    for e in estimates:
        table.add_row(
            e.stage.name,
            "x".join(map(str, e.size)),
            str(e.stage.config.batch_size),
            f"{e.trained / 1e6:.1f} M",
            str(e.steps),
            _memory(e.peak_bytes),
            _memory(e.saved_bytes),
        )
    console.print(table)
    _say(console, "trained: parameters; memory: in a step, by the shapes of its tensors, libraries take some more;")
    _say(console, "kept: of it, from the forward for the backward pass")
    largest = max(estimates, key=lambda e: e.saved_bytes)
    _say(console, f"\nkept for backward in stage {largest.stage.name}:")
    layers = _table("layer", "memory", "share")
    for layer in sorted(largest.layers, key=lambda layer: -layer.bytes)[:LISTED_LAYERS]:
        share = f"{layer.bytes / largest.saved_bytes:.0%}"
        layers.add_row(layer.layer or "losses and inputs", _memory(layer.bytes), share)
    console.print(layers)
    console.print()


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _steps_done(config: TrainConfig, stages: list[Stage], world: World, console: Console, resume: bool) -> int:
    """Steps of a run so far; weights that it cannot begin with or go on from show here."""
    if resume:
        return setup.resume(config, stages, world).step
    if config.init_from is not None:
        setup.begin(config, stages[0], world, console)
    return 0


def _time_stages(
    config: TrainConfig,
    estimates: list[StageEstimate],
    data: RunData,
    perceptual: nn.Module | None,
    world: World,
    console: Console,
) -> list[StageTiming]:
    """Time some steps of each stage, from new weights, and print each result as it comes."""
    timings: list[StageTiming] = []
    for estimate in estimates:
        stage = estimate.stage
        if world.device.type == "cpu" and estimate.peak_bytes > _physical_memory():
            raise ConfigError(setup.too_large(config, stage, world))  # Linux would end this process instead
        with enough_memory(setup.too_large(config, stage, world)), showing_progress(console) as progress:
            timing = _time_stage(config, estimate, data, perceptual, world.device, progress)
        timings.append(timing)
        gpu = "" if timing.gpu_bytes is None else f", {_memory(timing.gpu_bytes)} of the GPU's memory"
        _say(
            console, f"stage {stage.name}: {timing.step_seconds:.3g} s a step, {_duration(timing.seconds)} in all{gpu}"
        )
    total = _duration(sum(timing.seconds for timing in timings))
    _say(console, f"all stages: {total}, without samples and checkpoints")
    return timings


def _physical_memory() -> int:
    """Bytes of this machine's memory; without end where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**63


def _time_stage(
    config: TrainConfig,
    estimate: StageEstimate,
    data: RunData,
    perceptual: nn.Module | None,
    device: torch.device,
    progress: Progress,
) -> StageTiming:
    """The median time of a step, waiting for its batch included, after one in which libraries and compilers prepare."""
    task = f"timing steps of stage {estimate.stage.name}"
    progress(task, 0, TIMED_STEPS + 1)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the stage before has left is no part of this one's
        torch.cuda.reset_peak_memory_stats(device)
    state = StageState(config, estimate.stage, device)
    gradients = make_gradients(config, state, config.loss.criterion(perceptual, state.pool))
    times: list[float] = []
    begin = time.monotonic()
    for taken, batch in enumerate(_batches(config, data, estimate.stage, device), start=1):
        _step(config, state, gradients, batch)
        times.append(time.monotonic() - begin)
        progress(task, taken, TIMED_STEPS + 1)
        if sum(times[1:]) > MOST_SECONDS:
            break
        begin = time.monotonic()
    gpu_bytes = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return StageTiming(estimate, statistics.median(times[1:]), gpu_bytes)


def _batches(config: TrainConfig, data: RunData, stage: Stage, device: torch.device) -> Iterator[Batch]:
    loader = make_loader(
        data.training(stage.config.size, config.seed),
        stop=(TIMED_STEPS + 1) * stage.config.batch_size,
        batch=stage.config.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        pin_memory=device.type == "cuda",
    )
    return prefetched(loader, device, config.format_on(device))


def _step(config: TrainConfig, state: StageState, gradients: Gradients, batch: Batch) -> None:
    gradients(batch).tolist()
    state.update(config.optim.clip)
    if batch.photo.device.type == "cuda":
        torch.cuda.synchronize(batch.photo.device)
