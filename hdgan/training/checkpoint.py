"""Checkpoints of a run: one folder a checkpoint, complete or absent.

RUN/checkpoints/step-00001000/model.safetensors   weights, averages, mean styles, and the config that builds them
                              training.pt         optimizers, fake pool, position in the schedule
RUN/checkpoints/best.json                         which step measured best in the latest stage
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hdgan.config_io import to_plain
from hdgan.errors import CheckpointError, HdganError, TrainingError
from hdgan.files import atomic_file, atomic_folder
from hdgan.models.saving import load_model, save_model
from hdgan.training.config import TrainConfig
from hdgan.training.state import StageState

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.pt"
_PREFIX = "step-"


def checkpoints_folder(run: Path) -> Path:
    return run / "checkpoints"


def list_steps(run: Path) -> list[int]:
    """Steps of all complete checkpoints, ascending."""
    folders = checkpoints_folder(run).glob(f"{_PREFIX}*")
    return sorted(int(folder.name.removeprefix(_PREFIX)) for folder in folders if folder.is_dir())


def checkpoint_path(run: Path, step: int) -> Path:
    return checkpoints_folder(run) / f"{_PREFIX}{step:08d}"


def find_checkpoint(path: Path, which: str | int = "latest") -> Path:
    """The model file that a user means by a run folder, a checkpoint folder or a file.

    Args:
        path: a run, a checkpoint folder, or a .safetensors file.
        which: for a run: "latest", "best", or a step.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: give a run folder, a checkpoint folder or a .safetensors file")
    steps = list_steps(path)
    if not steps:
        raise CheckpointError(f"{path} holds no checkpoint: give the folder of a training run that has saved one")
    step = steps[-1] if which == "latest" else best_step(path) if which == "best" else int(which)
    if step not in steps:
        raise CheckpointError(f"{path} has no checkpoint of step {step}: there are {', '.join(map(str, steps))}")
    return checkpoint_path(path, step) / MODEL_FILE


def best_step(run: Path) -> int | None:
    """The step of the best checkpoint, if one has been measured."""
    file = checkpoints_folder(run) / "best.json"
    if not file.is_file():
        return None
    try:
        return int(json.loads(file.read_text())["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}): delete it; the next checkpoint writes it anew") from error


def save_checkpoint(run: Path, config: TrainConfig, state: StageState, tensors: dict[str, Tensor]) -> Path:
    """Write a checkpoint of this moment, update which is best, and delete those no longer kept.

    Args:
        run: folder of the run.
        config: saved with the weights.
        state: what is saved.
        tensors: further named tensors for inference.

    Raises:
        TrainingError: it cannot be written; the checkpoints before it are untouched.
    """
    folder = checkpoint_path(run, state.step)
    extra = {"train": to_plain(config), "step": state.step, "stage": state.stage.name}
    try:
        with atomic_folder(folder) as temporary:
            save_model(temporary / MODEL_FILE, state.model, ema=state.ema.state_dict(), extra=extra, tensors=tensors)
            torch.save(state.training_state(), temporary / TRAINING_FILE)
    except (HdganError, SafetensorError, RuntimeError) as error:
        kept = list_steps(run)
        last = f"the last good checkpoint is {checkpoint_path(run, kept[-1])}" if kept else "there is no earlier one"
        raise TrainingError(f"checkpoint {folder} could not be written: {error}; {last}") from error
    if state.best is not None:
        step, val_l1 = state.best
        with atomic_file(checkpoints_folder(run) / "best.json") as temporary:
            temporary.write_text(json.dumps({"step": step, "stage": state.stage.name, "val_l1": val_l1}))
    _prune(run, config.log.keep)
    return folder


def _prune(run: Path, keep: int) -> None:
    steps = list_steps(run)
    for step in steps[:-keep]:
        if step != best_step(run):
            shutil.rmtree(checkpoint_path(run, step))


def remove_leftovers(run: Path) -> None:
    """Delete what a killed process had begun to write."""
    for folder in checkpoints_folder(run).glob(f".{_PREFIX}*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def read_training_state(folder: Path) -> dict[str, Any]:
    """Read the part of a checkpoint that only training needs.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    file = folder / TRAINING_FILE
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}): delete the folder {folder} to resume from the checkpoint before it"
        ) from error
    return state


def restore(folder: Path, state: StageState) -> None:
    """Continue `state` from a checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged or of another architecture or schedule.
    """
    training = read_training_state(folder)
    raw, _ = load_model(folder / MODEL_FILE, ema=False)
    averaged, _ = load_model(folder / MODEL_FILE, ema=True)
    average = {key: value for key, value in averaged.state_dict().items() if not key.startswith("discriminator.")}
    if raw.config != state.model.config:
        raise CheckpointError(
            f"{folder} holds another architecture than the run's config: {raw.config} instead of {state.model.config}"
        )
    state.load(raw.state_dict(), average, training)
