"""Before the first step: the state that a run begins or goes on with, and what must hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from torch import nn

from hdgan.checkpoints import checkpoint_path, find_checkpoint, list_steps
from hdgan.config.options import option
from hdgan.devices import enough_memory
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families.common.perceptual import OnMissing
from hdgan.families.saving import load_model
from hdgan.training.agreement import require_same_checkpoint
from hdgan.training.checkpoint import forget_lost_best, mark_and_prune, read_training_state, restore
from hdgan.training.config import TrainConfig
from hdgan.training.datasets import RunData
from hdgan.training.distributed import World
from hdgan.training.run_folder import load_config
from hdgan.training.schedule import Stage
from hdgan.training.state import StageState
from hdgan.wording import count


@contextmanager
def torch_settings(config: TrainConfig) -> Iterator[None]:
    """Let cuDNN choose its algorithms while a run lasts; the number of threads stays as the run has set it."""
    before = torch.backends.cudnn.benchmark
    # Pictures mostly have one size in a stage: trying out cuDNN's algorithms once pays.
    torch.backends.cudnn.benchmark = True
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def first_state(
    config: TrainConfig, stages: list[Stage], world: World, console: Console, resume_run: bool
) -> StageState:
    """The state before the first step of a new run or of a resume, the same in all processes.

    Raises:
        HdganError: weights or checkpoint cannot be used, or do not fit into memory.
    """
    stage = stages[0]
    with enough_memory(too_large(config, stage, world)):
        if not resume_run:
            return begin(config, stage, world, console)
        state = resume(config, stages, world)
    require_same_checkpoint(world.peers, config.out, state.step)
    return state


def too_large(config: TrainConfig, stage: Stage, world: World) -> str:
    """What is told where a stage does not fit into memory: the options that help."""
    name, own = stage.name, stage.config.batch_size // world.size
    remedies = [
        f"{option('precision')} bfloat16" if config.precision == "float32" else "",
        f"{option(f'stages.{name}.micro_batch')} 1" if (stage.config.micro_batch or own) > 1 else "",
        option("recompute") if not config.recompute else "",
        f"a smaller {option(f'stages.{name}.size.width')} or {option(f'stages.{name}.size.crop_width')}",
    ]
    return (
        f"stage {name}, with {count(own, 'picture')} of each batch, does not fit into the memory of {world.device}: "
        f"{', or '.join(filter(None, remedies))}"
    )


def begin(config: TrainConfig, stage: Stage, world: World, console: Console) -> StageState:
    """The first stage, from new weights or those of another run.

    Raises:
        HdganError: the weights of the other run cannot be used.
    """
    if config.init_from is None:
        return StageState(config, stage, world.device)
    file = find_checkpoint(config.init_from)
    other, info = load_model(file, ema=False)
    for name in info.missing:
        console.print(f"{file} holds no {name}: it starts from new weights", markup=False, highlight=False)
    state = StageState(config, stage, world.device)
    ours = state.model.config
    if other.config.family != ours.family:
        raise ConfigError(
            f"{option('init_from')} {file} is a model of the family {other.config.family}, this run of {ours.family}"
        )
    for part, number in other.config.growth.items():
        if number > ours.growth[part]:
            raise ConfigError(
                f"{option('init_from')} {file} has {count(number, part)}, stage {stage.name} {ours.growth[part]}: a "
                "run only grows"
            )
    try:
        state.take_over(other)
    except RuntimeError as error:
        # PyTorch lists every tensor, a line each, below a heading.
        first = str(error).splitlines()[-1].strip()
        raise ConfigError(
            f"{option('init_from')} {file} has another architecture than stage {stage.name}: {first}"
        ) from error
    return state


def resume(config: TrainConfig, stages: list[Stage], world: World) -> StageState:
    """The latest checkpoint of the run; writes nothing.

    Raises:
        CheckpointError: there is none, or it does not go with the config.
        ConfigError: the config would start from other weights than the run did.
    """
    steps = list_steps(config.out)
    if not steps:
        raise CheckpointError(
            f"{config.out} has no checkpoint to resume from: start it again without {option('resume')}"
        )
    begun = load_config(config.out).init_from
    if config.init_from != begun:
        raise ConfigError(
            f"{option('init_from')} {config.init_from} has no effect on a run that has begun"
            f"{'' if begun is None else f' from {begun}'}: leave it out, or start a new run with another "
            f"{option('out')}"
        )
    folder = checkpoint_path(config.out, steps[-1])
    training = read_training_state(folder)
    stage = next((stage for stage in stages if stage.name == training["stage"]), None)
    if stage is None:
        raise CheckpointError(f"{folder} was made in stage {training['stage']}, which the run's config no longer has")
    state = StageState(config, stage, world.device)
    restore(folder, state, training)
    if state.best is not None and state.best[0] not in steps:  # somebody has deleted it: the next one takes its place
        state.best = None
    return state


def tidy(config: TrainConfig, state: StageState) -> None:
    """Finish what saving the checkpoint of a resume may have left undone, if a kill came in between."""
    mark_and_prune(config.out, config, state)
    forget_lost_best(config.out)


def check_processes(config: TrainConfig, world: World) -> None:
    """Refuse what several processes cannot do.

    Raises:
        ConfigError: they cannot.
    """
    if world.size > 1 and config.optim.pool_size:
        raise ConfigError(
            f"{option('optim.pool_size')} {config.optim.pool_size} is for one process, since each would have its own "
            "pool: set it to 0"
        )


def check_stages(config: TrainConfig, stages: list[Stage], world: World) -> None:
    """Refuse what no stage can be run with: batches that cannot be divided, CUDA graphs that cannot be captured.

    Raises:
        ConfigError: a stage cannot run.
    """
    for stage in stages:
        check_batch(stage, world)
    check_cuda_graphs(config, stages, world)


def check_pictures(config: TrainConfig, data: RunData, stage: Stage) -> None:
    """Read the pictures that samples and measurements are made of, which otherwise show damage after many steps.

    Raises:
        DataError: one cannot be read.
    """
    dataset = data.validation(stage.config.size)
    for index in range(min(max(config.log.samples, config.log.val_images), len(dataset))):
        dataset[index]


def check_cuda_graphs(config: TrainConfig, stages: list[Stage], world: World) -> None:
    """Make sure that a CUDA graph, if the config wants it, can hold the steps of all stages.

    Raises:
        ConfigError: it cannot.
    """
    if not config.cuda_graphs:
        return
    reasons = {
        f"{option('device')} {config.device} is no GPU": world.device.type != "cuda",
        f"{option('model.feature_channels')} makes tables whose size changes with the instances": (
            config.model.feature_channels
        ),
        f"{option('optim.pool_size')} chooses pictures at random": config.optim.pool_size,
        **{
            f"{option(f'stages.{stage.name}.micro_batch')} accumulates gradients": stage.config.micro_batch is not None
            for stage in stages
        },
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"{option('cuda_graphs')} does not work here: {reason}; leave one of the two out")


def check_batch(stage: Stage, world: World) -> None:
    """Make sure that a stage's batch can be divided among processes and micro batches.

    Raises:
        ConfigError: it cannot.
    """
    batch, micro = stage.config.batch_size, stage.config.micro_batch
    if batch % world.size:
        raise ConfigError(
            f"{option(f'stages.{stage.name}.batch_size')} {batch} cannot be split over {world.size} processes: give a "
            "multiple"
        )
    if micro is not None and (micro < 1 or (batch // world.size) % micro):
        raise ConfigError(
            f"{option(f'stages.{stage.name}.micro_batch')} {micro} does not divide the "
            f"{count(batch // world.size, 'picture')} that each process has of a batch: give a divisor"
        )


def load_perceptual(config: TrainConfig, world: World, on_missing: OnMissing | None = None) -> nn.Module | None:
    """The network that the run's perceptual loss takes its features of, if it has one.

    Args:
        config: of the run.
        world: its processes.
        on_missing: for a dry run, which needs no weights: is told what a run lacks.

    Raises:
        ConfigError, CheckpointError: its weights cannot be loaded.
    """
    network = config.loss.load_perceptual(on_missing)
    if network is None:
        return None
    return network.to(world.device, memory_format=config.format_on(world.device))  # type: ignore[call-overload]
