"""The folder of a run: which process may write to it, and the files that describe the run.

RUN/config.json        the whole config
    environment.json   versions and machine
    classes.csv        names and colours of the classes, where they are known
    metrics.jsonl      losses, learning rate, speed, and events in words
    tensorboard/       the same
    tracker.json       the run of wandb or mlflow that gets the same
    samples/<stage>/   inputs/ and a folder of images for each sampled step
    checkpoints/       see hdgan.checkpoints
    report.html        all of it at a glance
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hdgan.checkpoints import list_steps
from hdgan.config.bounds import Count
from hdgan.config.options import option
from hdgan.config.serialization import from_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.data.class_file import CLASS_FILE, write_classes
from hdgan.data.config import PhotoMode
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, ConfigError, HdganError
from hdgan.families import ModelConfig
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.registry import AnyTrainConfig, family_of
from hdgan.files import create_empty, require_no_file, same_path
from hdgan.files.json import read_json, write_json
from hdgan.files.remote import located
from hdgan.sharding.world import World

CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
LOCK_SECONDS = 10.0
"""The data workers of a killed run keep its lock for about five more seconds."""


@dataclass(frozen=True)
class RunEnvironment:
    """The environment of a run, in environment.json; None where unknown."""

    hdgan: str | None = None
    torch: str | None = None
    python: str | None = None
    platform: str | None = None
    device: str | None = None
    threads: int | None = None
    processes: int | None = None
    training_pictures: Count | None = None
    photos: str | None = None
    """Channels and bits of photos that are read as stored."""
    steps: dict[str, str] | None = None
    """How the steps of each stage run or ran, by its name."""


def claim_folder(config: TrainConfig, resume: bool) -> None:
    """Make sure that a new run does not overwrite another.

    Raises:
        ConfigError: the folder contains a run and this is not a resume, or there is something that is no folder.
    """
    require_no_file(config.out)
    steps = list_steps(config.out)
    if steps and not resume:
        raise ConfigError(
            f"{config.out} already contains a run, saved at step {steps[-1]}: continue it with "
            f"`hdgan-train --resume {config.out}`, or choose another {option('out')}"
        )


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Prevent other processes from training in a folder; the system releases the lock however this process ends.

    Raises:
        ConfigError: another process trains there.
        HdganError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # not needed by those who only read what is in the folder

    lock = FileLock(run / ".lock")
    try:
        create_empty(run / ".lock")
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ConfigError(
            f"another process is training in {run}: wait until it ends, stop it, or choose another {option('out')}"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise HdganError(f"cannot write {run}: {reason}; choose another {option('out')}") from error
    try:
        yield
    finally:
        lock.release()


def remove_samples(run: Path) -> None:
    """Delete the samples of a run that ended before its first checkpoint; they may show other data than the new run."""
    try:
        load_config(run)
    except CheckpointError:  # no run began here, so samples/ is the user's
        return
    shutil.rmtree(run / "samples", ignore_errors=True)


def write_description(
    config: TrainConfig,
    world: World,
    training_pictures: int,
    steps: Mapping[str, str],
    photos: str | None = None,
    classes: DatasetSpec | None = None,
    *,
    resume: bool = False,
) -> None:
    """Write config.json, environment.json, and classes.csv where the classes have names.

    Args:
        config: of the run.
        world: its processes.
        training_pictures: their number.
        steps: how the steps of each stage run that is not finished.
        photos: their channels and bits, if they are read as stored.
        classes: names and colours of the classes, where they are known.
        resume: keep what environment.json says of the stages that are finished.
    """
    finished: Mapping[str, str] = {}
    if resume:
        with suppress(CheckpointError):  # a damaged file is replaced
            finished = load_environment(config.out).steps or {}
    environment = RunEnvironment(
        hdgan=version("hdgan"),
        torch=torch.__version__,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        device=torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine(),
        threads=torch.get_num_threads(),
        processes=world.size,
        training_pictures=training_pictures,
        photos=photos,
        steps={name: text for name, text in {**finished, **steps}.items() if name in config.stages},
    )
    for name, content in ((CONFIG_FILE, config), (ENVIRONMENT_FILE, environment)):
        write_json(config.out / name, content)
    if classes is not None:
        write_classes(config.out / CLASS_FILE, classes)


def load_config(run: Path) -> TrainConfig:
    """Read the config of a run.

    Raises:
        CheckpointError: the folder holds no run, or its config is damaged.
    """
    file = run / CONFIG_FILE
    if not os.path.lexists(file):
        raise CheckpointError(f"{run} is not a run ({CONFIG_FILE} is missing): give the folder of a training run")
    return read_json(file, AnyTrainConfig, "copy it again, or take the options from the file of a checkpoint")


def load_environment(run: Path) -> RunEnvironment:
    """Read the environment of a run; everything is unknown if the file is missing.

    Raises:
        CheckpointError: it is damaged.
    """
    file = run / ENVIRONMENT_FILE
    return read_json(file, RunEnvironment, "delete it") if os.path.lexists(file) else RunEnvironment()


def training_of(
    file: Path, metadata: Mapping[str, Any], model: ModelConfig, root: Path | None = None
) -> tuple[TrainConfig, SizeConfig]:
    """How a model was trained, with the data under `root` if it is given, and the size of the images.

    Args:
        file: the model, for messages.
        metadata: of the file.
        model: config of the model in the file.
        root: dataset, if it is not the one that the file names.

    Raises:
        ConfigError: the file names no dataset, and `root` is not given.
    """
    known = metadata.get("train")
    if known is not None:
        config: TrainConfig = from_plain(AnyTrainConfig, known, f"{file}, train")
        stage = config.stages.get(str(metadata.get("stage")))
        if stage is None:
            raise CheckpointError(
                f"{file} is of stage {metadata.get('stage')!r:.60}, which its own config does not contain: the stages "
                f"are {', '.join(config.stages)}"
            )
        return (config if root is None else replace(config, data=_under(root, config.data))), stage.size.whole
    if root is None:
        raise ConfigError(f"{file} does not say what it was trained on: give the dataset with {option('root')}")
    photo: PhotoMode = "rgb" if model.is_rgb else "stored"
    data = DataConfig(root=root, instance_divisor=model.instance_divisor, dontcare=model.dontcare, photo=photo)
    return family_of(model).train_config(model=model, data=data), SizeConfig()


def _under(root: Path, data: DataConfig) -> DataConfig:
    """The data under `root`; a dataset other than the training's may have another layout and other phases."""
    root = located(root, option("root"))
    if data.root is not None and same_path(data.root, root):
        return replace(data, root=root)
    return replace(data, root=root, layout="auto", val_phase=None)
