"""Where the checkpoints of a run are: one folder each, complete or absent.

RUN/checkpoints/step-00001000/model.safetensors   weights, averages, mean styles, and the config that builds them
                              training.pt         optimizers, fake pool, position in the schedule
                              features.npz        E's features of all training instances (hdgan styles encode)
                              styles.safetensors  their clusters (hdgan styles cluster)
RUN/checkpoints/step-…-undone/                    a checkpoint with styles that a rollback has taken out of the run
RUN/checkpoints/best.json                         step of the best checkpoint of the latest stage

A model that comes with hdgan is a checkpoint folder in hdgan/pretrained, and its name there stands for it. A model on
the Hugging Face Hub, hf:OWNER/NAME, is a checkpoint folder in the cache of the hub.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hdgan.config.bounds import Count
from hdgan.config.options import option
from hdgan.config.serialization import from_plain
from hdgan.errors import CheckpointError, ConfigError, call
from hdgan.files.json import read_json
from hdgan.files.opening import mode_of, require_file
from hdgan.hub import PREFIX as HUB
from hdgan.hub import cached_name, fetch_model, hub_name

MODEL_FILE = "model.safetensors"
FEATURES_FILE = "features.npz"
STYLES_FILE = "styles.safetensors"
TRAINING_FILE = "training.pt"
PREFIX = "step-"
PRETRAINED = Path(__file__).parent / "pretrained"
"""The folder of the models that come with hdgan, a checkpoint folder each."""


def checkpoints_folder(run: Path) -> Path:
    """The folder of a run that holds its checkpoints."""
    return run / "checkpoints"


def list_steps(run: Path) -> list[int]:
    """The steps of all complete checkpoints, ascending."""
    folders = [path for path in checkpoints_folder(run).glob(f"{PREFIX}*") if (path / MODEL_FILE).is_file()]
    names = (re.fullmatch(rf"{PREFIX}([0-9]{{8,18}})", folder.name) for folder in folders)
    return sorted(int(name[1]) for name in names if name)


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return checkpoints_folder(run) / f"{PREFIX}{step:08d}"


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint folder belongs to; None for a folder outside of a run."""
    folder = checkpoint.parent
    of_run = checkpoint.name.startswith(PREFIX) and folder == checkpoints_folder(folder.parent)
    return folder.parent if of_run else None


def pretrained_names() -> list[str]:
    """The names of the models that come with hdgan, in alphabetical order."""
    return sorted(file.parent.name for file in PRETRAINED.glob(f"*/{MODEL_FILE}"))


def is_pretrained(model: Path) -> bool:
    """Whether a model file is one that comes with hdgan."""
    return model.parent.parent == PRETRAINED


def unchanging_name(model: Path) -> str | None:
    """The name of a model in whose folder nothing may be written: it comes with hdgan, or is in the cache of the hub.

    Returns:
        The text by which commands take the model, which names the commit of a model of the hub; None for other models.
    """
    on_hub = cached_name(model)
    return str(on_hub) if on_hub is not None else model.parent.name if is_pretrained(model) else None


def locate(path: Path) -> Path:
    """The path itself if anything is there, else the folder of the model of this name.

    A model that comes with hdgan has its folder there, and a model of the hub in the cache, into which it is downloaded
    if need be. Errors about its files then call it as the user did.

    Raises:
        CheckpointError: there is neither a path nor a model of this name, or the hub cannot be asked for it.
        ConfigError: the model is on the hub, and huggingface_hub is not installed.
    """
    if not os.path.lexists(path):
        if str(path) in pretrained_names():
            return PRETRAINED / path
        if (on_hub := hub_name(path)) is not None:
            folder = fetch_model(on_hub, MODEL_FILE, (STYLES_FILE,))
            # The cache of a repository as a whole: a file of a commit is only a link to what was downloaded.
            again = f"delete {folder.parents[1]} to have it downloaded again"
            call(folder, on_hub, f"{again}, or give another revision, {HUB}OWNER/NAME@REVISION")
            return folder
    is_folder(path)
    return path


def find_checkpoint(path: Path, which: str | int = "latest") -> Path:
    """The model file that a run folder, a checkpoint folder, a file or the name of a model stands for.

    Args:
        path: a run, a checkpoint folder, a .safetensors file, the name of a model that comes with hdgan, or
            hf:OWNER/NAME.
        which: for a run: "latest", "best", or a step.

    Raises:
        CheckpointError, ConfigError: there is no such checkpoint, or as `locate`.
    """
    path = locate(path)
    if not is_folder(path):
        require_file(path, CheckpointError)
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    steps = list_steps(path)
    if not steps:
        hidden = "that comes with hdgan" if str(path) in pretrained_names() else "of the hub" if hub_name(path) else ""
        raise CheckpointError(
            f"{path} contains no checkpoint: give the folder of a training run that has saved one"
            + (f", or rename the folder to use the model {path} {hidden}" if hidden else "")
        )
    known = {"latest": steps[-1], "best": best_step(path)} | {str(step): step for step in steps}
    step = known.get(str(which))
    if step is None:
        there = ", ".join(name for name, step in known.items() if step is not None)
        raise CheckpointError(f"{path} has no checkpoint {which}; it has {there}")
    return checkpoint_path(path, step) / MODEL_FILE


def is_folder(path: Path) -> bool:
    """Whether a path that a user gave is a folder.

    Raises:
        CheckpointError: nothing is there, or it cannot be examined.
    """
    names = [f"{name}, which comes with hdgan" for name in pretrained_names()]
    *others, last = "a run folder", "a checkpoint folder", "a .safetensors file", "hf:OWNER/NAME", *names
    return stat.S_ISDIR(mode_of(path, CheckpointError, f"give {', '.join(others)} or {last}"))


@dataclass(frozen=True)
class Best:
    """What best.json says about the checkpoint with the best measurement."""

    step: Count
    stage: str = ""
    values: dict[str, float] = field(default_factory=dict)
    """Its measurements by their names in metrics.jsonl. The file stores them next to step and stage."""


def read_best(run: Path) -> Best | None:
    """What best.json says; None if no checkpoint has been measured.

    Raises:
        CheckpointError: it is damaged.
    """
    file = checkpoints_folder(run) / "best.json"
    if not os.path.lexists(file):
        return None
    content = read_json(file, dict, "delete it; the next checkpoint writes it again")
    values = {name: content.pop(name) for name in list(content) if name.startswith("val_")}
    return from_plain(Best, {**content, "values": values}, str(file))


def best_step(run: Path) -> int | None:
    """The step of the best checkpoint, if one has been measured."""
    best = read_best(run)
    return None if best is None else best.step


def beside(model: Path, name: str) -> Path:
    """The path of a file that belongs to a model: `name` in its checkpoint folder, otherwise `<model>.<name>`."""
    return model.with_name(name if model.name == MODEL_FILE else f"{model.stem}.{name}")


def model_of(file: Path, name: str) -> Path:
    """The model that a file belongs to whose path is that of `beside`. Neither need be there."""
    if file.name == name:
        return file.with_name(MODEL_FILE)
    return file.with_name(f"{file.name.removesuffix(f'.{name}')}.safetensors")


def copying(model: Path) -> str:
    """What to do with a model that has an `unchanging_name`, in order to change it."""
    copy = output_beside(model, "safetensors")
    return f"make a copy of it with `hdgan convert {unchanging_name(model)} --out {copy}` and use that"


def require_new_checkpoint(out: Path) -> None:
    """Raise ConfigError unless `out` is the name of a checkpoint that does not exist."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"{option('out')} {out} must end in .safetensors: it is a checkpoint of hdgan")
    if out.exists():
        raise ConfigError(f"{out} already exists: choose another {option('out')}, or delete it")


def output_beside(model: Path, name: str) -> Path:
    """Where a command writes a file or folder that belongs to a model.

    Returns:
        The path beside the model, or `<model>.<name>` in the working directory if the model comes with hdgan or is in
        the cache of the hub. The cache calls OWNER/NAME OWNER--NAME.
    """
    if is_pretrained(model):
        return Path(f"{model.parent.name}.{name}")
    if on_hub := cached_name(model):
        return Path(f"{on_hub.repository.replace('/', '--')}.{name}")
    return beside(model, name)
