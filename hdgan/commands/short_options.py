"""The most common options: short forms, most of which set all stages of a run at once.

They are applied to the preset before the options of the configuration are read. If both are given, the long one takes
precedence for its stage: `--batch-size 8 --stages.joint.batch-size 4` trains all stages except joint with batches of 8.

"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, Suppress, arg

from hdgan.data.config import DataConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.train_config import StageConfig, TrainConfig

T = TypeVar("T")
_SIZE = re.compile(r"(?:(\d+)(?:x(\d+))?|\*x(\d+))")
_LENGTHS = ("epochs", "images", "steps")
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
    """Size of the last stage's images in pixels; coarser stages keep their ratio to it."""
    epochs: Annotated[float | None, arg(metavar="NUMBER")] = None
    """Length of the run in passes over the training images; each stage keeps its share of it."""
    images: Annotated[int | None, arg(metavar="NUMBER")] = None
    """Length of the run in images."""
    steps: Annotated[int | None, arg(metavar="NUMBER")] = None
    """Length of the run in optimizer steps."""
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
    unit, lengths = _lengths(config)
    same: dict[str, Any] = {name: _common(stages, attrgetter(name)) for name in _IN_ALL_STAGES}
    return kind(
        **same | {name: attrgetter(place)(config) for name, place in _PLACES.items()},
        size=_size_text(stages[-1].size) if stages else None,
        epochs=sum(lengths) if unit == "epochs" else None,
        images=int(sum(lengths)) if unit == "images" else None,
    )


def apply(short: ShortOptions, config: TrainConfig) -> TrainConfig:
    """The config with the changes that the short options make.

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
    given = {name: changed[name] for name in _LENGTHS if changed.get(name) is not None}
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(f'--{name}' for name in given)} both set the length of training: give only one"
        )
    for unit, total in given.items():
        config = _lengthened(config, unit, total) if resumes else _scaled(config, unit, total)
    return config


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


def _lengths(config: TrainConfig) -> tuple[str, list[float]]:
    """The unit of all stages, epochs or images, and the length of each; ("", []) if their units differ."""
    stages = [stage for stage in config.stages.values() if stage.images != 0 and (stage.images or stage.epochs)]
    if stages and all(stage.images is not None for stage in stages):
        return "images", [float(stage.images or 0) for stage in config.stages.values()]
    if stages and all(stage.images is None for stage in stages):
        return "epochs", [0.0 if stage.images == 0 else stage.epochs for stage in config.stages.values()]
    return "", []


def _scaled(config: TrainConfig, unit: str, total: float) -> TrainConfig:
    """A run of this total length, in which each stage keeps its share. A stage of length 0 keeps it."""
    _, lengths = _lengths(config)
    if not sum(lengths):
        raise ConfigError(
            f"--{unit} {total:g}: some stages are counted in epochs, others in images; give --stages.NAME.{unit}"
        )
    if not 0 < total < float("inf"):
        raise ConfigError(f"--{unit} is {total:g}: give a positive number")
    kept = {name: length for (name, _), length in zip(config.stages.items(), lengths, strict=True) if length}
    stages = dict(config.stages)
    if unit == "epochs":
        for name, length in kept.items():
            stages[name] = replace(stages[name], epochs=total * length / sum(lengths), images=None)
        return replace(config, stages=stages)
    batches = [stages[name].batch_size if unit == "steps" else 1 for name in kept]
    weights = [length / batch for length, batch in zip(kept.values(), batches, strict=True)]
    for name, batch, part in zip(kept, batches, _divided(int(total), weights, unit), strict=True):
        stages[name] = replace(stages[name], images=part * batch)
    return replace(config, stages=stages)


def _lengthened(config: TrainConfig, unit: str, total: float) -> TrainConfig:
    """A run of this total length. Only its last stage changes, since the others may already be finished."""
    counted, lengths = _lengths(config)
    *_, (name, last) = config.stages.items()
    if counted != ("epochs" if unit == "epochs" else "images"):
        raise ConfigError(f"--{unit} {total:g}: the stages of this run are not counted in {unit}; see --help-all")
    batches = [stage.batch_size if unit == "steps" else 1 for stage in config.stages.values()]
    done = sum(
        -(-length // batch) if unit == "steps" else length for length, batch in zip(lengths[:-1], batches, strict=False)
    )
    left = total - done
    if not 0 < left < float("inf"):
        raise ConfigError(f"--{unit} is {total:g}, but the stages before {name} already take {done:g}: give more")
    changes: dict[str, Any] = {"epochs": left} if unit == "epochs" else {"images": int(left) * batches[-1]}
    return replace(config, stages={**config.stages, name: replace(last, **changes)})


def _divided(total: int, weights: Sequence[float], unit: str) -> list[int]:
    """Integers with this sum, each at least 1 and otherwise as close to its share as possible."""
    if total < len(weights):
        raise ConfigError(f"--{unit} is {total}, but there are {len(weights)} stages: give at least one for each")
    parts = _shares(total, weights)
    return parts if min(parts) > 0 else [1 + part for part in _shares(total - len(weights), weights)]


def _shares(total: int, weights: Sequence[float]) -> list[int]:
    bounds = [round(total * part / sum(weights)) for part in accumulate(weights, initial=0.0)]
    return [end - begin for begin, end in pairwise(bounds)]


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
