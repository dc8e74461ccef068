"""Writing checkpoints and continuing from them; `hdgan.checkpoints` says where they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdgan.checkpoints import (
    FEATURES_FILE,
    MODEL_FILE,
    PREFIX,
    STYLES_FILE,
    TRAINING_FILE,
    best_step,
    checkpoint_path,
    checkpoints_folder,
    list_steps,
)
from hdgan.config.bounds import BatchSize, Count, Share
from hdgan.config.options import option
from hdgan.config.serialization import from_plain, to_plain
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, DivergenceError, HdganError, TrainingError
from hdgan.families.common.augmentation import Sign
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.saving import load_model, read_metadata, save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.families.stored_inputs import StoredInputs, inputs_entry
from hdgan.files import atomic_folder, remove_dead, remove_dead_below, remove_folder, write_text
from hdgan.training.health import Health
from hdgan.training.schedule import Stage
from hdgan.training.state import StageState
from hdgan.training.validation import record_name
from hdgan.weights import StoredTensor, open_saved


def save_checkpoint(
    run: Path,
    config: TrainConfig,
    state: StageState,
    tensors: dict[str, Tensor],
    classes: DatasetSpec | None = None,
    inputs: StoredInputs | None = None,
) -> Path:
    """Write a checkpoint of the current state, update the best one, and delete those that are no longer kept.

    Args:
        run: folder of the run.
        config: saved with the weights.
        state: what is saved.
        tensors: further named tensors for inference.
        classes: names and colours of the classes, where they are known.
        inputs: of an A->B model, the images that it is trained on.

    Raises:
        TrainingError: it cannot be written; earlier checkpoints are unchanged.
    """
    folder = checkpoint_path(run, state.step)
    extra = {"train": to_plain(config), "step": state.step, "stage": state.stage.name}
    extra |= classes_entry(classes) | inputs_entry(inputs)
    try:
        with atomic_folder(folder) as temporary:
            save_model(temporary / MODEL_FILE, state.model, ema=state.ema.state_dict(), extra=extra, tensors=tensors)
            torch.save(state.training_state(), temporary / TRAINING_FILE)
    except HdganError as error:
        kept = list_steps(run)
        last = f"the last good checkpoint is {checkpoint_path(run, kept[-1])}" if kept else "there is no earlier one"
        raise TrainingError(f"checkpoint {folder} could not be written: {error}; {last}") from error
    mark_and_prune(run, config, state)
    return folder


def require_finite(run: Path, stage: Stage, step: int, values: Mapping[str, float]) -> None:
    """Raise DivergenceError if a loss, metric or weight is not finite; the message names the checkpoint to return to.

    Args:
        run: folder of the run.
        stage, step: where the run is, for the message.
        values: by their names.
    """
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    steps = list_steps(run)
    last = (
        f"the last good checkpoint is {checkpoint_path(run, steps[-1])}: resume from it with a lower learning rate, "
        "--optim.clip 1, or float32"
        if steps
        else "there is no checkpoint yet: lower the learning rate, or set --optim.clip 1"
    )
    raise DivergenceError(f"step {step} of stage {stage.name}: {', '.join(wrong)}", last)


def finish_saving(run: Path, config: TrainConfig, state: StageState) -> None:
    """Finish saving the checkpoint that a resume starts from, in case the process was killed in between."""
    mark_and_prune(run, config, state)
    if best_step(run) not in list_steps(run):  # of a checkpoint that is gone
        (checkpoints_folder(run) / "best.json").unlink(missing_ok=True)


def mark_and_prune(run: Path, config: TrainConfig, state: StageState) -> None:
    """Record which checkpoint is best, and delete those that are no longer kept.

    Kept are the latest, the best, the last good one for a rollback, and those in which `hdgan styles` has written,
    which is the user's work.
    """
    if state.best is not None:
        step, value = state.best
        best = {"step": step, "stage": state.stage.name, record_name(str(state.best_by["metric"])): value}
        write_text(checkpoints_folder(run) / "best.json", json.dumps(best))
    for step in list_steps(run)[: -config.log.keep]:
        folder = checkpoint_path(run, step)
        if step not in (best_step(run), state.health.good) and not has_styles(folder):
            remove_folder(folder)


def has_styles(folder: Path) -> bool:
    """Whether `hdgan styles` has written into a checkpoint."""
    return any((folder / name).is_file() for name in (FEATURES_FILE, STYLES_FILE))


def remove_leftovers(run: Path) -> None:
    """Delete files that killed processes had begun to write, also those of earlier versions."""
    remove_dead(run, lambda _: True)  # nobody else writes temporary files into a run
    for folder in (checkpoints_folder(run), run / "samples"):
        remove_dead_below(folder, lambda _: True)


@dataclass(frozen=True)
class _Moments:
    """What Adam stores for a parameter."""

    step: StoredTensor
    exp_avg: StoredTensor
    exp_avg_sq: StoredTensor


@dataclass(frozen=True)
class _Optimizer:
    state: dict[int, _Moments]
    """By the number of the parameter."""
    param_groups: list[dict[str, Any]]


@dataclass(frozen=True)
class _TrainingFile:
    """The result of `StageState.training_state` as it is in a file."""

    stage: str
    step: Count
    first_step: Count
    optimizer_g: _Optimizer
    pool: list[StoredTensor]
    pool_conditions: list[StoredTensor] | None = None
    """In files of earlier versions part of the pool."""
    augmentation: tuple[Share, Sign] | None = None
    """Of an adaptive one."""
    optimizer_d: _Optimizer | None = None
    batch_size: BatchSize | None = None
    best: tuple[Count, float] | None = None
    best_by: dict[str, str | int | None] | None = None
    best_metric: str | None = None
    """In files of versions without best_by."""
    penalty: float | None = None
    stale: Count = 0
    health: Health | None = None
    """Absent if the run's health is not watched."""


def read_training_state(folder: Path) -> dict[str, Any]:
    """Read the part of a checkpoint that only training needs.

    Returns:
        What `StageState.training_state` returned. Optimizers that are not in the file, and keys that only newer
        versions write, are absent.

    Raises:
        CheckpointError: the file is missing, damaged or of another step.
    """
    file = folder / TRAINING_FILE
    try:
        with open_saved(file) as (content, read):
            saved = from_plain(_TrainingFile, content, str(file))
            tensors = read(dict(_stored_tensors(saved)))
        moved = folder.name.startswith(PREFIX) and folder.name != checkpoint_path(folder, saved.step).name
        if moved or saved.first_step > saved.step:
            raise CheckpointError(f"{file} is from step {saved.step}, in a stage that began at step {saved.first_step}")
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; or delete the folder {folder} to resume from the previous checkpoint"
        ) from error
    state = {field.name: getattr(saved, field.name) for field in fields(saved)}
    for name in _OPTIMIZERS:
        optimizer = state[name]
        if optimizer is not None:
            moments = {k: {part: tensors[name, k, part] for part in _PARTS} for k in optimizer.state}
            state[name] = {"state": moments, "param_groups": optimizer.param_groups}
    for name in _POOL:
        if state[name] is not None:
            state[name] = [tensors[name, k, ""] for k in range(len(state[name]))]
    return {name: value for name, value in state.items() if value is not None or name == "best"}


_OPTIMIZERS = ("optimizer_g", "optimizer_d")
_POOL = ("pool", "pool_conditions")
_PARTS = tuple(field.name for field in fields(_Moments))


def _stored_tensors(saved: _TrainingFile) -> Iterator[tuple[tuple[str, int, str], StoredTensor]]:
    """All tensors of a file, by unique names."""
    for name in _OPTIMIZERS:
        optimizer = getattr(saved, name)
        for k, moments in optimizer.state.items() if optimizer else ():
            yield from (((name, k, part), getattr(moments, part)) for part in _PARTS)
    for name in _POOL:
        yield from (((name, k, ""), tensor) for k, tensor in enumerate(getattr(saved, name) or ()))


def require_network_of(folder: Path, config: TrainConfig) -> None:
    """Make sure that a resume compares the features of the network that the checkpoint was trained with.

    Args:
        folder: of the checkpoint.
        config: of the resume, which records its network. VGG19 and scorers are not recorded.

    Raises:
        CheckpointError: the weights or the program have changed, or another one is given.
    """
    saved = read_metadata(folder / MODEL_FILE).get("train")
    losses = saved.get("loss") if isinstance(saved, Mapping) else None
    begun = losses.get("network_digest") if isinstance(losses, Mapping) else None
    ours = getattr(config.loss, "network_digest", None)
    if ours is not None and begun is not None and ours != begun:
        raise CheckpointError(
            f"the network of {option('loss.network')} is not the one that {folder} was trained with (SHA-256 "
            f"{ours[:8]}… instead of {str(begun)[:8]}…): restore it, or start a new run with {option('init_from')}"
        )


def restore(folder: Path, state: StageState, training: dict[str, Any]) -> None:
    """Continue `state` from a checkpoint and what `read_training_state` read of it.

    Raises:
        CheckpointError: the checkpoint is damaged or of another architecture or schedule.
    """
    try:
        raw, _ = load_model(folder / MODEL_FILE, ema=False)
        averaged, _ = load_model(folder / MODEL_FILE, ema=True)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or delete {folder} to resume from the previous checkpoint") from error
    average = {key: value for key, value in averaged.state_dict().items() if not key.startswith("discriminator.")}
    differences = list(_differences(to_plain(raw.config), to_plain(state.model.config)))
    if differences:
        raise CheckpointError(
            f"{folder} does not have the architecture of the run's config: {', '.join(differences)}; a resume cannot "
            f"change it: start a new run with {option('init_from')} to reuse the weights"
        )
    state.load(raw.state_dict(), average, training)


def _differences(saved: dict[str, Any], current: dict[str, Any], path: str = "") -> Iterator[str]:
    """Options that both have and that differ. If they are of different kinds, the tag that names the kind differs."""
    for key in [key for key in current if key in saved]:
        ours, theirs = current[key], saved[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(theirs, ours, f"{path}{key}.")
        elif theirs != ours:
            yield f"{path}{key} is {theirs} in the checkpoint, {ours} in the config"
