"""`hdgan-train --dry-run`: what a run will need, first from shapes alone, then from a few timed steps of each stage."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
from rich.console import Console
from rich.table import Table

from hdgan.config.options import option
from hdgan.devices import enough_memory
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import TrainConfig
from hdgan.progress import Progress, print_lines, showing_progress
from hdgan.sharding.world import join_world
from hdgan.training import setup
from hdgan.training.datasets import RunData
from hdgan.training.estimate import StageEstimate, estimate_stage
from hdgan.training.setup import RunSetup
from hdgan.training.state import StageState
from hdgan.training.step_choices import choose_steps
from hdgan.training.trainer import Trainer
from hdgan.wording import count, memory_size

TIMED_STEPS = 5
MOST_SECONDS = 20.0
"""Maximum time for the timed steps of one stage, unless a single step takes longer."""
LISTED_LAYERS = 8


@dataclass(frozen=True)
class StageTiming:
    """How long a stage takes."""

    estimate: StageEstimate
    step_seconds: float
    """Median."""
    gpu_bytes: int | None
    """PyTorch's peak memory on the GPU in a step; None on a CPU."""

    @property
    def seconds(self) -> float:
        return self.estimate.steps * self.step_seconds


def dry_run(config: TrainConfig, console: Console, *, resume: bool = False) -> list[StageTiming]:
    """Print what a run needs according to its shapes; then take a few steps of every remaining stage, and print their
    time.

    Writes nothing into the run's folder, and needs no weights of VGG19.

    Args:
        config: of the run.
        console: where the tables go.
        resume: continue the run in the config's folder: estimate only the rest of it.

    Raises:
        HdganError: options or data that cannot be used, or a stage that does not fit into memory.
    """
    with setup.torch_settings(config), join_world(config.device) as world:
        if world.size > 1:
            raise ConfigError(f"{option('dry_run')} works only in one process: run it without torchrun")
        missing: list[str] = []
        run = setup.prepare(config, resume, world, console, missing.append)
        # Weights that a run cannot start from show here. New ones are not made: they may not fit into memory.
        done = setup.first_state(run, resume).step if resume or config.init_from is not None else 0
        left = [stage for stage in run.stages if stage.last_step > done]
        steps = choose_steps(run, done)
        configs = {name: choices.applied(run.config) for name, choices in steps.items()}
        estimates = [estimate_stage(configs[stage.name], stage, run.data, run.perceptual, done) for stage in left]
        print_estimates(run.config, run.data, estimates, console)
        for name, choices in steps.items():
            print_lines(console, f"stage {name}: {choices}")
        for reason in missing:
            print_lines(console, f"{reason}. The steps below are timed with random weights instead")
        timings = []
        for estimate in estimates:
            timings.append(_time_stage(run, configs[estimate.stage.name], estimate))
            _print_timing(console, timings[-1])
        total = _duration(sum(timing.seconds for timing in timings))
        print_lines(console, f"all stages: {total}, excluding samples and checkpoints")
        return timings


def print_estimates(config: TrainConfig, data: RunData, estimates: list[StageEstimate], console: Console) -> None:
    """Print what is known before a step is taken: data, parameters, and a row for each stage."""
    print_lines(console, f"dry run: nothing is written to {config.out}")
    training = count(len(data.train_pairs), "training image")
    held_out = f"{count(len(data.val_pairs), 'image')} of {data.val_phase} for samples and validation"
    print_lines(console, f"data: {data.config.root}: {training}; {held_out}")
    if not estimates:
        print_lines(console, "no stage remains to be trained")
        return
    parts = ", ".join(f"{name} {number / 1e6:.1f} M" for name, number in estimates[-1].parameters.items())
    print_lines(console, f"parameters at the end: {parts}")
    table = _table("stage", "size", "batch", "trained", "steps", "memory", "kept")
    for e in estimates:
        table.add_row(
            e.stage.name,
            "x".join(map(str, e.size)),
            str(e.stage.config.batch_size),
            f"{e.trained / 1e6:.1f} M",
            str(e.steps),
            memory_size(e.peak_bytes),
            memory_size(e.saved_bytes),
        )
    console.print(table)
    largest = max(estimates, key=lambda e: e.saved_bytes)
    print_lines(
        console,
        "trained: trained parameters; memory: of a step, from the shapes of its tensors (libraries need more);",
        "kept: the part that the forward pass keeps for the backward pass",
        f"\nkept for the backward pass in stage {largest.stage.name}:",
    )
    layers = _table("layer", "memory", "share")
    for layer in sorted(largest.layers, key=lambda layer: -layer.bytes)[:LISTED_LAYERS]:
        share = f"{layer.bytes / largest.saved_bytes:.0%}"
        layers.add_row(layer.layer or "losses and inputs", memory_size(layer.bytes), share)
    console.print(layers)
    console.print()


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _print_timing(console: Console, timing: StageTiming) -> None:
    gpu = "" if timing.gpu_bytes is None else f", {memory_size(timing.gpu_bytes)} of the GPU's memory"
    time_needed = f"{timing.step_seconds:.3g} s per step, {_duration(timing.seconds)} in all"
    print_lines(console, f"stage {timing.estimate.stage.name}: {time_needed}{gpu}")


def _physical_memory() -> int:
    """Bytes of this machine's memory; a huge number if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**63


def _time_stage(run: RunSetup, config: TrainConfig, estimate: StageEstimate) -> StageTiming:
    """Time some steps of a stage, from new weights; the config has the choices of the stage."""
    stage, device = estimate.stage, run.world.device
    too_large = setup.too_large(config, stage, run.world)
    if device.type == "cpu" and estimate.peak_bytes > _physical_memory():
        raise ConfigError(too_large)  # Linux would end this process instead
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the stage before has left does not count for this one
        torch.cuda.reset_peak_memory_stats(device)
    with enough_memory(too_large), showing_progress(run.console) as progress:
        trainer = Trainer(config, StageState(config, stage, device), run.perceptual, run.world)
        seconds = _step_seconds(run, trainer, progress)
    gpu_bytes = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    return StageTiming(estimate, seconds, gpu_bytes)


def _step_seconds(run: RunSetup, trainer: Trainer, progress: Progress) -> float:
    """The median time of a step, including the wait for its batch, after a first step in which libraries and compilers
    prepare.

    Each step waits for the one before, as in training, so a GPU needs no further synchronisation.
    """
    stage = trainer.state.stage
    task = f"timing steps of stage {stage.name}"
    progress(task, 0, TIMED_STEPS + 1)
    times: list[float] = []
    begin = time.monotonic()
    for taken, batch in enumerate(run.batches(stage, 0, TIMED_STEPS + 1), start=1):
        trainer.train_step(batch)
        times.append(time.monotonic() - begin)
        progress(task, taken, TIMED_STEPS + 1)
        if sum(times[1:]) > MOST_SECONDS:
            break
        begin = time.monotonic()
    trainer.finish()
    return statistics.median(times[1:])
