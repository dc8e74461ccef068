"""Before the first step: the checks, data and networks that a run needs, and the state that it starts from."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from hdgan.checkpoints import checkpoint_path, find_checkpoint, list_steps
from hdgan.config.options import option, option_off
from hdgan.data import make_loader
from hdgan.data.agreement import require_same_pairs
from hdgan.devices import emulates_bfloat16, enough_memory
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families.common.batch import Batch
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.losses import OnMissing
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.saving import load_model, read_metadata
from hdgan.families.stored_classes import stored_classes
from hdgan.progress import print_lines
from hdgan.seeding import derive_seed
from hdgan.sharding.world import World
from hdgan.training.checkpoint import read_training_state, require_network_of, restore
from hdgan.training.consistency import (
    require_same_checkpoint,
    require_same_network,
    require_same_plan,
    require_same_run,
)
from hdgan.training.cuda_graph import graph_obstacle
from hdgan.training.datasets import RunData, open_data, resolved, training_shapes
from hdgan.training.known_classes import renamed_note
from hdgan.training.prefetch import prefetched
from hdgan.training.run_folder import claim_folder, load_config
from hdgan.training.schedule import Stage, plan
from hdgan.training.state import StageState
from hdgan.training.validation import Validation
from hdgan.wording import count


@dataclass(frozen=True)
class RunSetup:
    """What all stages of a run share."""

    config: TrainConfig
    """Resolved: completed with the values that follow from the data."""
    world: World
    data: RunData
    stages: list[Stage]
    perceptual: nn.Module | None
    """Network of the perceptual loss, on the CPU until a `Trainer` takes it."""
    validation: Validation
    console: Console

    def batches(self, stage: Stage, start: int, stop: int, rollbacks: int = 0) -> Generator[Batch, None, None]:
        """This process's share of the batches of a stage's steps from `start` to before `stop`, counted from 0.

        After each rollback of the run the images come in another order, so that a batch that has spoilt the networks
        does not come again with the same neighbours.
        """
        config, world, batch = self.config, self.world, stage.config.batch_size
        seed = derive_seed(config.seed, self.stages.index(stage), *([rollbacks] if rollbacks else []))
        loader = make_loader(
            self.data.training(stage.config.size, seed),
            start=start * batch,
            stop=stop * batch,
            batch=batch // world.size,
            seed=seed,
            rank=world.rank,
            world=world.size,
            workers=config.data.workers,
            pin_memory=world.device.type == "cuda",
        )
        encodes = config.model.feature_channels > 0
        prepare = partial(Batch.indexed, size=stage.config.micro_batch) if encodes else lambda batch: batch
        yield from prefetched(loader, world.device, config.format_on(world.device), prepare)


def prepare(
    config: TrainConfig, resume: bool, world: World, console: Console, on_missing: OnMissing | None = None
) -> RunSetup:
    """Check and load everything that a run needs before its first state; write nothing.

    Args:
        config: of the run.
        resume: continue the run in the folder of the config.
        world: the processes of the run.
        console: where warnings go.
        on_missing: for a dry run, which needs no weights of the perceptual network: called with what is missing.

    Raises:
        HdganError: options, data, weights or scorer cannot be used.
    """
    require_same_run(world.rendezvous, config, resume=resume)
    claim_folder(config, resume)
    check_processes(config, world)
    with world.local_main_first():
        data = open_data(config, console, world.size, trained=resume)
    require_same_pairs(world.rendezvous, data.train_pairs, "training image")
    data = _with_kept_classes(config, data, resume, console)
    config = resolved(config, data)
    stages = plan(config, len(data.train_pairs))
    for stage in stages:
        data.training(stage.config.size, config.seed)  # refuses what it cannot read, before any work
    require_same_plan(world.rendezvous, config, stages)
    for stage in stages:
        check_batch(stage, world)
    check_cuda_graphs(config, stages, world)
    if config.precision == "bfloat16" and emulates_bfloat16(world.device):
        print_lines(console, f"this CPU has no instructions for bfloat16: {option('precision')} float32 is faster")
    if world.is_main:
        check_validation_images(config, data, stages[0])
    perceptual = config.loss.load_perceptual(training_shapes(config, data, world.size), on_missing)
    if on_missing is None:  # a dry run may have random weights
        config = replace(config, loss=config.loss.described(perceptual))
        require_same_network(world.rendezvous, config)
    return RunSetup(config, world, data, stages, perceptual, Validation(config, data, world.device), console)


def _with_kept_classes(config: TrainConfig, data: RunData, resume: bool, console: Console) -> RunData:
    """The data of a run with the names and colours of its classes: those of the dataset, which may have changed since a
    resumed run was begun; where the dataset has none, those of the run's latest checkpoint.
    """
    steps = list_steps(config.out) if resume else []
    if not steps:
        return data
    file, kept = find_checkpoint(config.out, steps[-1]), None
    with suppress(CheckpointError):  # of a file that cannot be resumed from, as `first_state` will say with a remedy
        kept = stored_classes(file, read_metadata(file), data.n_labels)
    if note := renamed_note(config.data, data.classes, kept, str(config.out)):
        print_lines(console, note)
    return replace(data, classes=data.classes or kept)


def first_state(run: RunSetup, resume: bool) -> StageState:
    """The state before the first step of a new run or of a resume, the same in all processes; writes nothing.

    Raises:
        HdganError: weights or checkpoint cannot be used, or do not fit into memory.
    """
    with enough_memory(too_large(run.config, run.stages[0], run.world)):
        if not resume:
            return _new_state(run)
        state = _resumed_state(run)
    require_same_checkpoint(run.world.rendezvous, run.config.out, state.step)
    return state


def _new_state(run: RunSetup) -> StageState:
    """The first stage, from new weights or those of another run."""
    config, stage = run.config, run.stages[0]
    if config.init_from is None:
        return StageState(config, stage, run.world.device)
    file = find_checkpoint(config.init_from)
    other, info = load_model(file, ema=False)
    for name in info.missing:
        print_lines(run.console, f"{config.init_from} contains no {name}, which starts from new weights")
    state = StageState(config, stage, run.world.device)
    ours = state.model.config
    if other.config.family != ours.family:
        raise ConfigError(
            f"{option('init_from')} {file} is a model of the family {other.config.family}, but this run is of "
            f"{ours.family}"
        )
    _require_same_spectral_norms(file, other.config, ours)
    _require_same_noise(file, other.config, ours)
    for part, number in other.config.growth.items():
        if number > ours.growth[part]:
            raise ConfigError(
                f"{option('init_from')} {file} has {count(number, part)}, but stage {stage.name} has "
                f"{ours.growth[part]}: a run can only grow"
            )
    try:
        state.take_over(other)
    except RuntimeError as error:
        # PyTorch lists every tensor, a line each, below a heading.
        first = str(error).splitlines()[-1].strip()
        raise ConfigError(
            f"{option('init_from')} {file} does not have the architecture of stage {stage.name}: {first}"
        ) from error
    return state


def _require_same_spectral_norms(file: Path, theirs: ModelConfig, ours: ModelConfig) -> None:
    """Refuse weights that spectral norm has not divided for networks where it does, and the other way round."""
    for part in ("generator", "discriminator"):
        there, here = (getattr(getattr(model, part, None), "spectral_norm", False) for model in (theirs, ours))
        if there != here:
            name = f"model.{part}.spectral_norm"
            raise ConfigError(
                f"{option('init_from')} {file} has a {part} {'with' if there else 'without'} spectral norm: use "
                f"{option(name) if there else option_off(name)}"
            )


def _require_same_noise(file: Path, theirs: ModelConfig, ours: ModelConfig) -> None:
    """Refuse weights of a generator with noise for one without, and the other way round."""
    there, here = (getattr(getattr(model, "generator", None), "noise", 0.0) for model in (theirs, ours))
    if bool(there) != bool(here):
        raise ConfigError(
            f"{option('init_from')} {file} has a generator {'with' if there else 'without'} noise: use "
            f"{option('model.generator.noise')} {there:g}"
        )


def _resumed_state(run: RunSetup) -> StageState:
    """The latest checkpoint of the run."""
    config = run.config
    steps = list_steps(config.out)
    if not steps:
        raise CheckpointError(f"{config.out} has no checkpoint to resume from: start it without {option('resume')}")
    begun = load_config(config.out).init_from
    if config.init_from != begun:
        raise ConfigError(
            f"{option('init_from')} {config.init_from} has no effect on a run that has already started"
            f"{'' if begun is None else f' from {begun}'}: leave it out, or start a new run with another "
            f"{option('out')}"
        )
    return saved_state(run, steps[-1])


def saved_state(run: RunSetup, step: int) -> StageState:
    """The state that a checkpoint of the run holds.

    Raises:
        CheckpointError: it is damaged, or does not fit the run.
    """
    config, folder = run.config, checkpoint_path(run.config.out, step)
    training = read_training_state(folder)
    stage = next((stage for stage in run.stages if stage.name == training["stage"]), None)
    if stage is None:
        raise CheckpointError(
            f"{folder} was saved in stage {training['stage']}, which the run's config no longer contains"
        )
    state = StageState(config, stage, run.world.device)
    restore(folder, state, training)
    require_network_of(folder, config)
    if state.best is not None and state.best[0] not in list_steps(config.out):
        state.best = None  # somebody has deleted it: the next one takes its place
    return state


def too_large(config: TrainConfig, stage: Stage, world: World) -> str:
    """The message if a stage does not fit into memory: it names the options that help."""
    name, own = stage.name, stage.config.batch_size // world.size
    remedies = [
        f"{option('precision')} bfloat16" if config.precision == "float32" else "",
        f"{option(f'stages.{name}.micro_batch')} 1" if (stage.config.micro_batch or own) > 1 else "",
        option("recompute") if not config.recompute else "",
        f"a smaller {option(f'stages.{name}.size.width')} or {option(f'stages.{name}.size.crop_width')}",
    ]
    return (
        f"stage {name}, with {count(own, 'image')} per batch and process, does not fit into the memory of "
        f"{world.device}: "
        f"{', or '.join(filter(None, remedies))}"
    )


@contextmanager
def torch_settings(config: TrainConfig) -> Iterator[None]:
    """Let cuDNN try its algorithms during a run; set the number of threads permanently."""
    before = torch.backends.cudnn.benchmark
    # The images of a stage usually have one size, so one trial of cuDNN's algorithms pays.
    torch.backends.cudnn.benchmark = True
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def check_processes(config: TrainConfig, world: World) -> None:
    """Raise ConfigError if several processes cannot do what the config asks for."""
    if world.size > 1 and config.optim.pool_size:
        raise ConfigError(
            f"{option('optim.pool_size')} {config.optim.pool_size} works only in one process, since each process "
            "would have its own pool: set it to 0"
        )


def check_validation_images(config: TrainConfig, data: RunData, stage: Stage) -> None:
    """Raise DataError if an image for samples or validation cannot be read, which would otherwise show only after many
    steps."""
    dataset = data.validation(stage.config.size)
    for index in range(min(max(config.log.samples, config.log.val_images), len(dataset))):
        dataset[index]


def check_cuda_graphs(config: TrainConfig, stages: list[Stage], world: World) -> None:
    """Raise ConfigError if the config asks for CUDA graphs, but they cannot capture the steps of all stages."""
    reasons = [graph_obstacle(config, stage, world.device) for stage in stages if config.cuda_graphs is True]
    for reason in filter(None, reasons):
        raise ConfigError(f"{option('cuda_graphs')} cannot be used because {reason}; leave one of the two out")


def check_batch(stage: Stage, world: World) -> None:
    """Raise ConfigError if a stage's batch cannot be divided among processes and micro batches."""
    batch, micro = stage.config.batch_size, stage.config.micro_batch
    if batch % world.size:
        raise ConfigError(
            f"{option(f'stages.{stage.name}.batch_size')} {batch} cannot be split over {world.size} processes: give a "
            "multiple of that"
        )
    if micro is not None and (micro < 1 or (batch // world.size) % micro):
        raise ConfigError(
            f"{option(f'stages.{stage.name}.micro_batch')} {micro} does not divide the "
            f"{count(batch // world.size, 'image')} of a batch in each process: give a divisor"
        )
