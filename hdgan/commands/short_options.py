"""The most common options: short forms, most of which set all stages of a run at once.

They are applied to the preset before the options of the configuration are read. If both are given, the long one takes
precedence for its stage: `--batch-size 8 --stages.joint.batch-size 4` trains all stages except joint with batches of 8.
Only the length of the run is divided over the stages after all other options are known (`run_length`).

"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, Suppress, arg

from hdgan.commands.run_length import LENGTHS, counted, option_names
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.train_config import StageConfig, TrainConfig

T = TypeVar("T")
_SIZE = re.compile(r"(?:(\d+)(?:x(\d+))?|\*x(\d+))")
_PLACES = {name: name for name in ("out", "precision", "device", "seed", "threads", "init_from")} | {
    "data_root": "data.root",
    "workers": "data.workers",
    "dontcare": "data.dontcare",
    "n_labels": "model.n_labels",
    "instances": "model.instances",
}
"""The place in the configuration of each option that sets a single field."""
_IN_ALL_STAGES = ("batch_size", "lr")
"""Options that set one field of every stage."""


@dataclass(frozen=True)
class ShortOptions:
    """What `hdgan-train PRESET --help` shows. None, the default where the stages differ, changes nothing."""

    data_root: Annotated[Path | None, arg(name="data.root", metavar="FOLDER")] = None
    """The dataset, a folder or a URL such as s3://bucket/set; None draws the built-in street scenes."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs/pix2pixhd")
    """The run: checkpoints, metrics, samples and report.html."""
    size: Annotated[str | None, arg(metavar="WIDTH[xHEIGHT]")] = None
    """Size of the images of the preset's last stage in pixels, also if that stage is left out; coarser stages keep
    their ratio to it."""
    epochs: Annotated[float | None, arg(metavar="NUMBER")] = None
    """Length of the run in passes over the training images. A stage with a length of its own keeps it
    (--stages.NAME.epochs or --stages.NAME.images, 0 to leave it out); the others share the rest as in the preset."""
    images: Annotated[int | None, arg(metavar="NUMBER")] = None
    """Length of the run in images, shared in the same way."""
    steps: Annotated[int | None, arg(metavar="NUMBER")] = None
    """Length of the run in optimizer steps, shared in the same way."""
    batch_size: Annotated[int | None, arg(metavar="NUMBER")] = None
    """Images per optimizer step, over all GPUs."""
    lr: Annotated[float | None, arg(metavar="NUMBER")] = None
    """Learning rate before it falls."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the networks under autocast."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int | None = None
    """Data worker processes; 0 reads images in the training process; None chooses up to 4."""
    n_labels: int = 35
    """Number of classes in the label maps; 0 for images instead of label maps (A->B)."""
    dontcare: int | None = None
    """Label of pixels that belong to no class, for example 255."""
    instances: bool = True
    """Feed the boundaries of instance maps to the networks."""
    seed: int = 0
    """Random seed of weights, data order, augmentation and training."""
    threads: int | None = None
    """CPU threads of PyTorch."""
    init_from: Annotated[Path | None, arg(metavar="RUN")] = None
    """Start from the weights of another run or checkpoint, or of hf:OWNER/NAME."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Continue a run, instead of a preset; --resume RUN --help lists the options that it takes."""
    dry_run: FlagCreatePairsOff[bool] = False
    """Do not train, only print parameters, memory, steps and time of each stage."""
    help_all: FlagCreatePairsOff[bool] = False
    """Show all options of the configuration as well."""


@dataclass(frozen=True)
class ResumeOptions(ShortOptions):
    """What `hdgan-train --resume RUN --help` shows: what can change in the middle of a run."""

    out: Suppress[Path] = Path()
    size: Suppress[str | None] = None
    batch_size: Suppress[int | None] = None
    n_labels: Suppress[int] = 35
    dontcare: Suppress[int | None] = None
    instances: Suppress[bool] = True
    init_from: Suppress[Path | None] = None
    resume: Suppress[Path | None] = None
    epochs: Annotated[float | None, arg(metavar="NUMBER")] = None
    """Length of the run in passes over the training images; the last stage becomes longer or shorter."""


@dataclass(frozen=True)
class _ResumedData(DataConfig):
    dontcare: Suppress[int | None] = None
    instance_divisor: Suppress[int] = 1000


@dataclass(frozen=True, kw_only=True)
class _ResumedConfig(TrainConfig):
    """A run's config whose help leaves out what a resume rejects. tyro takes model, stages and losses as they are."""

    out: Suppress[Path] = Path()
    model: Suppress[ModelConfig]
    data: _ResumedData = _ResumedData()
    init_from: Suppress[Path | None] = None


def hiding(config: TrainConfig) -> TrainConfig:
    """The same config, but its help leaves out what a resume rejects."""
    return _as(_ResumedConfig, config, data=_as(_ResumedData, config.data))


def _as(kind: type[T], value: Any, **others: Any) -> T:
    names = (f.name for f in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: getattr(value, name) for name in names} | others)


def of_config(config: TrainConfig, kind: type[ShortOptions] = ShortOptions) -> ShortOptions:
    """The values of the short options in a config."""
    stages = list(config.stages.values())
    unit, lengths = counted(config)
    same: dict[str, Any] = {name: _common(stages, attrgetter(name)) for name in _IN_ALL_STAGES}
    return kind(
        **same | {name: attrgetter(place)(config) for name, place in _PLACES.items()},
        size=_size_text(stages[-1].size) if stages else None,
        epochs=sum(lengths) if unit == "epochs" else None,
        images=int(sum(lengths)) if unit == "images" else None,
    )


def apply(short: ShortOptions, config: TrainConfig) -> TrainConfig:
    """The config with the changes that the short options make, except for the length of the run (`total_length`).

    Args:
        short: as `of_config(config)` made them, with the changes of the user.
        config: of a preset, or of the run to continue if `short` is a `ResumeOptions`.

    Raises:
        ConfigError: options that contradict each other, or that the stages cannot follow.
    """
    resumes = isinstance(short, ResumeOptions)
    before = of_config(config, type(short))
    changed = {
        f.name: getattr(short, f.name) for f in fields(short) if getattr(short, f.name) != getattr(before, f.name)
    }
    for name in ("size", "batch_size"):
        if resumes and name in changed:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} sets all stages, but some are finished: give --stages.NAME.{option[2:]}")
    parts: dict[str, dict[str, Any]] = {"": {}, "data": {}, "model": {}}
    for name in changed.keys() & _PLACES.keys():
        part, _, own = _PLACES[name].rpartition(".")
        parts[part][own] = changed[name]
    in_stages = {name: changed[name] for name in _IN_ALL_STAGES if name in changed}
    config = replace(
        config,
        data=replace(config.data, **parts["data"]),
        model=replace(config.model, **parts["model"]),
        stages={name: replace(stage, **in_stages) for name, stage in config.stages.items()},
        **parts[""],
    )
    if changed.get("size") is not None:
        config = _sized(config, changed["size"])
    return config


def total_length(short: ShortOptions, arguments: Sequence[str]) -> dict[str, float]:
    """The length of the run by its unit, if the arguments give one, for `hdgan.commands.run_length.with_length`.

    A length may be given that equals the preset's, which matters once other options leave stages out.
    """
    typed = option_names(arguments)
    return {unit: getattr(short, unit) for unit in LENGTHS if f"--{unit}" in typed and getattr(short, unit) is not None}


def spellings(arguments: Sequence[str], stages: Sequence[str]) -> dict[str, str]:
    """How the user has typed options that have a short form, for `hdgan.config.options.typed_as`."""
    given = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    given |= {argument.replace("--no-", "--") for argument in given if argument.startswith("--no-")}
    given |= {argument.replace(".no-", ".") for argument in given}
    places = {place: name for name, place in _PLACES.items()}
    places |= {f"stages.{stage}.{name}": name for stage in stages for name in (*_IN_ALL_STAGES, "epochs", "images")}
    typed = {place: f"--{name.replace('_', '-')}" for place, name in places.items() if place not in (name, "data.root")}
    return {
        place: short for place, short in typed.items() if short in given and f"--{place.replace('_', '-')}" not in given
    }


def _sized(config: TrainConfig, text: str) -> TrainConfig:
    """Give the last stage, and drawn scenes, this size; the other stages keep their ratios to the last one."""
    match = _SIZE.fullmatch(text)
    width, height = (int(match[1] or 0) or None, int(match[2] or match[3] or 0) or None) if match else (None, None)
    if width is None and height is None:
        raise ConfigError(f"--size is {text!r}: give WIDTH or WIDTHxHEIGHT in pixels, for example 512x256")
    last = list(config.stages.values())[-1].size
    stages = {}
    for name, stage in config.stages.items():
        ratio = _ratio(stage.size, last)
        if ratio is None:
            raise ConfigError(
                f"--size {text}: stage {name} has no fixed ratio to the last one; give --stages.{name}.size.width"
            )
        if stage.size.jitter and (width is None or height is None):
            raise ConfigError(f"--size {text}: crops need both sides; give WIDTHxHEIGHT")
        sides = {
            side: None if n is None else max(1, round(n * ratio)) for side, n in (("width", width), ("height", height))
        }
        jitter = round(stage.size.jitter * (width or 0) / (last.width or 1))
        stages[name] = replace(stage, size=replace(stage.size, jitter=jitter, **sides))
    data = config.data
    if data.uses_scenes:
        scenes = data.scenes
        width = width or round((height or 0) * scenes.width / scenes.height)
        height = height or round(width * scenes.height / scenes.width)
        data = replace(data, scenes=replace(scenes, width=width, height=height))
    return replace(config, stages=stages, data=data)


def _ratio(size: SizeConfig, last: SizeConfig) -> float | None:
    if size.width and last.width:
        return size.width / last.width
    if size.height and last.height:
        return size.height / last.height
    return 1.0 if size == last else None


def _size_text(size: SizeConfig) -> str | None:
    if size.width is None:
        return None if size.height is None else f"*x{size.height}"
    return f"{size.width}" if size.height is None else f"{size.width}x{size.height}"


def _common(stages: Sequence[StageConfig], value: Callable[[StageConfig], T]) -> T | None:
    """The common value of all stages, None if they differ."""
    values = {value(stage) for stage in stages}
    return values.pop() if len(values) == 1 else None
