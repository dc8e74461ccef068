"""`hdgan-train --dry-run`: what a run will need, found by taking a few steps of each stage."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from hdgan.data import make_loader
from hdgan.devices import enough_memory
from hdgan.errors import ConfigError
from hdgan.models.blocks import recomputing
from hdgan.training import start
from hdgan.training.config import TrainConfig
from hdgan.training.datasets import RunData, fitted, open_data
from hdgan.training.distributed import World, join_world
from hdgan.training.families import Criterion
from hdgan.training.gradients import Gradients, make_gradients
from hdgan.training.memory import LayerMemory, PeakMeter, saved_by_layer
from hdgan.training.prefetch import prefetched
from hdgan.training.run_folder import claim_folder
from hdgan.training.schedule import Stage, plan
from hdgan.training.state import StageState
from hdgan.training.step import Inputs
from hdgan.training.validation import Validation

TIMED_STEPS = 5
MOST_SECONDS = 20.0
"""Of timed steps in one stage, unless one step alone takes longer."""
LISTED_LAYERS = 8


@dataclass(frozen=True)
class StageEstimate:
    """What a stage needs."""

    stage: Stage
    steps: int
    """That are still to do."""
    trained: int
    """Parameters that are trained."""
    step_seconds: float
    """Median."""
    peak_bytes: int
    """Most that lives at once in a step: weights, optimizers, activations, gradients."""
    layers: list[LayerMemory]
    """What a micro batch keeps between its forward and its backward pass."""

    size: str
    """Of its pictures, width x height."""

    @property
    def saved_bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds


def rehearse(config: TrainConfig, console: Console, *, resume: bool = False) -> list[StageEstimate]:
    """Take a few steps of every stage that is left, from new weights, and print what they needed. Begins no run.

    Args:
        config: of the run.
        console: where the tables go.
        resume: the run in the config's folder is to be continued: estimate what is left of it.

    Raises:
        HdganError: options or data that cannot be used, or a stage that does not fit into memory.
    """
    with start.torch_settings(config), join_world(config.device) as world:
        if world.size > 1:
            raise ConfigError("--dry-run is for one process: run it without torchrun")
        claim_folder(config, resume)
        start.check_processes(config, world)
        data = open_data(config, console)
        config = fitted(config, data)
        stages = plan(config, len(data.train_pairs))
        start.check_stages(config, data, stages, world)
        estimates: list[StageEstimate] = []
        with console.status("") as status:
            perceptual = start.load_perceptual(config, world)
            Validation(config, data, world.device)  # a scorer that cannot be used shows here
            with enough_memory(
                f"the weights to begin with do not fit into the memory of {world.device}: choose another --device"
            ):
                done = _steps_done(config, stages, world, console, resume)
            for stage in stages:
                if stage.last_step > done:
                    status.update(f"stage {stage.name}")
                    with enough_memory(_too_large(stage, world.device)):
                        estimates.append(_estimate(config, stage, data, perceptual, world.device, done))
    print_estimates(config, estimates, console)
    return estimates


def print_estimates(config: TrainConfig, estimates: list[StageEstimate], console: Console) -> None:
    """Print a row for each stage, the sum, and the layers that keep most for the backward pass."""
    console.print(f"dry run: nothing was begun in {config.out}", markup=False, highlight=False, soft_wrap=True)
    table = _table("stage", "size", "batch", "trained", "steps", "s/step", "time", "peak", "kept")
    for e in estimates:
        table.add_row(
            e.stage.name,
            e.size,
            str(e.stage.config.batch_size),
            f"{e.trained / 1e6:.1f} M",
            str(e.steps),
            f"{e.step_seconds:.3g}",
            _duration(e.seconds),
            _memory(e.peak_bytes),
            _memory(e.saved_bytes),
        )
    console.print(table)
    total = _duration(sum(e.seconds for e in estimates))
    console.print(f"all stages: {total}, without samples and checkpoints", highlight=False)
    console.print("trained: parameters; peak: memory in a step; kept: of it, for the backward pass", highlight=False)
    if not estimates:
        return
    largest = max(estimates, key=lambda e: e.saved_bytes)
    console.print(f"\nkept for backward in stage {largest.stage.name}:", markup=False, highlight=False)
    layers = _table("layer", "memory", "share")
    for layer in sorted(largest.layers, key=lambda layer: -layer.bytes)[:LISTED_LAYERS]:
        share = f"{layer.bytes / largest.saved_bytes:.0%}"
        layers.add_row(layer.layer or "losses and inputs", _memory(layer.bytes), share)
    console.print(layers)


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


def _too_large(stage: Stage, device: torch.device) -> str:
    return (
        f"stage {stage.name}, with batches of {stage.config.batch_size}, does not fit into the memory of {device}: "
        f"--precision bfloat16, --stages.{stage.name}.micro-batch 1, or a smaller --stages.{stage.name}.size"
    )


def _steps_done(config: TrainConfig, stages: list[Stage], world: World, console: Console, resume: bool) -> int:
    """Steps of a run so far; weights that it cannot begin with or go on from show here."""
    if resume:
        return start.resume(config, stages, world).step
    if config.init_from is not None:
        start.begin(config, stages[0], world, console)
    return 0


def _estimate(
    config: TrainConfig, stage: Stage, data: RunData, perceptual: nn.Module | None, device: torch.device, done: int
) -> StageEstimate:
    state = StageState(config, stage, device)
    criterion = config.family.criterion(config.loss, perceptual, state.pool)
    batches = _batches(config, data, stage, device)
    first = next(batches)
    gradients = make_gradients(config, state, criterion)
    with torch.compiler.set_stance("force_eager"):
        layers = _layers(config, state, criterion, first)
    peak = _peak(config, state, gradients, first, perceptual)
    return StageEstimate(
        stage=stage,
        steps=stage.last_step - max(done, stage.first_step),
        trained=sum(p.numel() for p in (*state.g_parameters, *state.d_parameters)),
        step_seconds=_step_seconds(config, state, gradients, first, batches),
        peak_bytes=peak,
        layers=layers,
        size="x".join(map(str, reversed(first.photo.shape[2:]))),
    )


def _batches(config: TrainConfig, data: RunData, stage: Stage, device: torch.device) -> Iterator[Inputs]:
    loader = make_loader(
        data.training(stage.config.size, config.seed),
        stop=(TIMED_STEPS + 1) * stage.config.batch_size,
        batch=stage.config.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        pin_memory=device.type == "cuda",
    )
    return prefetched(loader, device, config.format_on(device))


def _layers(config: TrainConfig, state: StageState, criterion: Criterion, batch: Inputs) -> list[LayerMemory]:
    """What is kept for the backward pass."""
    networks = nn.ModuleDict(dict(state.model.named_children()))
    if criterion.perceptual is not None:
        networks["perceptual"] = criterion.perceptual
    micro_batch = next(iter(batch.split(state.stage.config.micro_batch)))
    with config.autocast(batch.photo.device), recomputing(config.recompute):
        return saved_by_layer(lambda: criterion(state.model, micro_batch), networks)


def _peak(
    config: TrainConfig, state: StageState, gradients: Gradients, batch: Inputs, perceptual: nn.Module | None
) -> int:
    """Bytes that live at most in a step, weights included; on a CPU of one that is not compiled."""
    if batch.photo.device.type == "cuda":
        # What the stage before and the search for layers have left is no part of this step's.
        state.clear_gradients()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(batch.photo.device)
        _step(config, state, gradients, batch)
        return torch.cuda.max_memory_reserved(batch.photo.device)
    networks = [state.model, state.ema.model, *([] if perceptual is None else [perceptual])]
    with torch.compiler.set_stance("force_eager"), PeakMeter() as meter:
        _step(config, state, gradients, batch)
    return meter.peak + sum(weight.nbytes for network in networks for weight in network.parameters())


def _step_seconds(
    config: TrainConfig, state: StageState, gradients: Gradients, first: Inputs, batches: Iterator[Inputs]
) -> float:
    """Median time of a step, waiting for its batch included, after one in which libraries and compilers prepare."""
    _step(config, state, gradients, first)
    times: list[float] = []
    begin = time.monotonic()
    for batch in batches:
        _step(config, state, gradients, batch)
        times.append(time.monotonic() - begin)
        if sum(times) > MOST_SECONDS:
            break
        begin = time.monotonic()
    return statistics.median(times)


def _step(config: TrainConfig, state: StageState, gradients: Gradients, batch: Inputs) -> None:
    gradients(batch).tolist()
    state.update(config.optim.clip)
    if batch.photo.device.type == "cuda":
        torch.cuda.synchronize(batch.photo.device)
