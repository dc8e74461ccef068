"""The folder of a run: who owns it, and the files that describe it.

RUN/config.json        the whole config
    environment.json   versions and machine
    metrics.jsonl      losses, learning rate, speed
    tensorboard/       the same
    samples/<stage>/   inputs/ and a folder of pictures for each sampled step
    checkpoints/       see hdgan.checkpoints
    report.html        all of it at a glance
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout

from hdgan.checkpoints import list_steps
from hdgan.config_io import from_plain, to_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.errors import CheckpointError, ConfigError, HdganError
from hdgan.files import atomic_file
from hdgan.models import AnyModelConfig, ModelConfig
from hdgan.training.config import TrainConfig
from hdgan.training.distributed import World
from hdgan.training.families import FAMILIES

CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
LOCK_SECONDS = 10.0
"""The processes that read pictures for a killed one hold its lock for some five seconds more."""


def claim_folder(config: TrainConfig, resume: bool) -> None:
    """Make sure that a new run does not overwrite another.

    Raises:
        ConfigError: the folder holds a run and this is no resume.
    """
    steps = list_steps(config.out)
    if steps and not resume:
        raise ConfigError(
            f"{config.out} already holds a run, saved at step {steps[-1]}: continue it with "
            f"`hdgan-train --resume {config.out}`, or choose another folder with --out"
        )


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the system lets go of it however this process ends.

    Raises:
        ConfigError: another process trains there.
        HdganError: the folder cannot be written to.
    """
    lock = FileLock(run / ".lock")
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ConfigError(
            f"another process trains in {run}: wait for its end, stop it, or choose another folder with --out"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise HdganError(f"cannot write {run}: {reason}; choose another folder with --out") from error
    try:
        yield
    finally:
        lock.release()


def remove_samples(run: Path) -> None:
    """Delete what a run that ended before its first checkpoint has left, of other data it may be, for a new one."""
    if (run / CONFIG_FILE).is_file():  # or samples/ is none of ours
        shutil.rmtree(run / "samples", ignore_errors=True)


def write_description(config: TrainConfig, world: World, training_pictures: int) -> None:
    """Write config.json and environment.json."""
    environment = {
        "hdgan": version("hdgan"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": world.size,
        "training_pictures": training_pictures,
    }
    for name, content in ((CONFIG_FILE, to_plain(config)), (ENVIRONMENT_FILE, environment)):
        with atomic_file(config.out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_config(run: Path) -> TrainConfig:
    """Read the config of a run.

    Raises:
        CheckpointError: the folder holds no run, or its config is damaged.
    """
    file = run / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(f"{run} holds no run ({CONFIG_FILE} is missing): give the folder of a training run")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    return from_plain(TrainConfig, content, str(file))


def training_of(
    file: Path, metadata: Mapping[str, Any], model: ModelConfig, root: Path | None = None
) -> tuple[TrainConfig, SizeConfig]:
    """How a model was trained, with the data under `root` if it is given, and the size of the pictures.

    Args:
        file: the model, for messages.
        metadata: of the file.
        model: what the metadata's model is.
        root: dataset, where it is not the one that the file names.

    Raises:
        ConfigError: the file names no dataset, and `root` is not given.
    """
    known = metadata.get("train")
    if known is not None:
        config = from_plain(TrainConfig, known, f"{file}, train")
        stage = config.stages[metadata["stage"]]
        return (config if root is None else replace(config, data=_under(root, config.data))), stage.size.whole
    if root is None:
        raise ConfigError(f"{file} does not say what it was trained on: name the dataset with --root")
    data = DataConfig(root=root, instance_divisor=model.instance_divisor, dontcare=model.dontcare)
    loss = FAMILIES[type(model)].loss()
    return TrainConfig(model=cast(AnyModelConfig, model), data=data, loss=loss), SizeConfig()


def _under(root: Path, data: DataConfig) -> DataConfig:
    """The data under `root`; another dataset than the training's may lie in another way and have other phases."""
    if data.root is not None and data.root.resolve() == root.resolve():
        return replace(data, root=root)
    return replace(data, root=root, layout="auto", val_phase=None)
