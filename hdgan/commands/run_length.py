"""The length of a whole run (`--epochs`, `--images` or `--steps`), and how it is divided over the stages.

A stage whose length is given by a long option, such as `--stages.joint.images 100`, keeps it, and the other stages
share what is left as in the preset. A stage of length 0 is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from hdgan.errors import ConfigError
from hdgan.families.common.train_config import StageConfig, TrainConfig

LENGTHS = ("epochs", "images", "steps")
Own = Mapping[str, Set[str]]
"""The fields among epochs and images that the user has typed for single stages, by the stage."""


def own_lengths(arguments: Sequence[str], stages: Iterable[str]) -> Own:
    """The stages whose length is typed in the arguments, and the fields that set it."""
    names = option_names(arguments)
    typed = {stage: {unit for unit in ("epochs", "images") if f"--stages.{stage}.{unit}" in names} for stage in stages}
    return {stage: units for stage, units in typed.items() if units}


def option_names(arguments: Sequence[str]) -> set[str]:
    """The options among the arguments of a command, without their values and spelt with hyphens."""
    return {argument.split("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}


def counted(config: TrainConfig) -> tuple[str, list[float]]:
    """The unit of all stages, epochs or images, and the length of each; ("", []) if their units differ."""
    units = {_unit(stage) for stage in config.stages.values() if not _is_left_out(stage)}
    if len(units) != 1:
        return "", []
    return units.pop(), [_length(stage) for stage in config.stages.values()]


def with_length(config: TrainConfig, given: Mapping[str, float], own: Own, resumes: bool = False) -> TrainConfig:
    """A run of the length that the user asks for.

    Args:
        config: with the lengths that long options give single stages, and those of the preset or run for the others.
        given: the total, by its unit: epochs, images or steps; empty if the user gives none.
        own: the stages whose length is given by long options.
        resumes: the config is of a run to continue, so that only its last stage can become longer or shorter.

    Raises:
        ConfigError: there are several totals, or stages whose lengths contradict the total or are in another unit.
    """
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in given)
        raise ConfigError(f"{names} both set the length of training: give only one")
    if "epochs" in given and not resumes:  # all stages are counted in epochs then, also if the preset's are in images
        in_epochs = {name: replace(config.stages[name], images=None) for name in own if own[name] == {"epochs"}}
        config = replace(config, stages={**config.stages, **in_epochs})
    _refuse_idle_epochs(config, own)
    for unit, total in given.items():
        if not 0 < total < float("inf"):
            raise ConfigError(f"--{unit} is {total:g}: give a positive number")
        if not resumes:
            return _divided(config, unit, total, own)
        return _lengthened(config, unit, total, own)
    return config


def _refuse_idle_epochs(config: TrainConfig, own: Own) -> None:
    """Refuse epochs if the preset or the run sets the stage's length in images, which takes precedence."""
    for name, typed in own.items():
        option, instead, images = f"--stages.{name}.epochs", f"--stages.{name}.images", config.stages[name].images
        if "epochs" in typed and images is not None:
            raise ConfigError(f"{option} has no effect while {instead} is {images}: add {instead} None")


def _divided(config: TrainConfig, unit: str, total: float, own: Own) -> TrainConfig:
    """A new run of this length, in which the stages without a length of their own share what the others leave."""
    rest = {name: stage for name, stage in config.stages.items() if name not in own and not _is_left_out(stage)}
    taken = _taken(config, unit, total, own)
    if not rest:
        if taken != total:
            raise ConfigError(_without_rest(unit, total, taken))
        return config
    if len({_unit(stage) for stage in rest.values()}) > 1:
        raise ConfigError(
            f"--{unit} {total:g}: some stages are counted in epochs, others in images; give "
            f"--stages.NAME.{_field(unit)}"
        )
    left = total - taken
    if left <= 0 or (unit != "epochs" and left < len(rest)):
        raise ConfigError(_too_short(config, unit, total, own, len(rest)))
    lengths = [_length(stage) for stage in rest.values()]
    changes: list[dict[str, Any]]
    if unit == "epochs":
        changes = [{"epochs": left * length / sum(lengths), "images": None} for length in lengths]
    else:
        batches = [stage.batch_size if unit == "steps" else 1 for stage in rest.values()]
        parts = _parts(int(left), [length / batch for length, batch in zip(lengths, batches, strict=True)])
        changes = [{"images": part * batch} for part, batch in zip(parts, batches, strict=True)]
    stages = {name: replace(stage, **change) for (name, stage), change in zip(rest.items(), changes, strict=True)}
    return replace(config, stages={**config.stages, **stages})


def _lengthened(config: TrainConfig, unit: str, total: float, own: Own) -> TrainConfig:
    """A resumed run of this length. Only its last stage changes, since the others may already be finished."""
    stages = {name: stage for name, stage in config.stages.items() if not _is_left_out(stage)}
    if not stages:
        raise ConfigError(_without_rest(unit, total, 0))
    if {_unit(stage) for stage in stages.values()} != {_field(unit)}:
        raise ConfigError(f"--{unit} {total:g}: the stages of this run are not counted in {unit}; see --help-all")
    *before, (name, last) = stages.items()
    if name in own:
        raise ConfigError(
            f"--{unit} sets the length of the last stage, and so does {_typed(config, name, own)}: give only one"
        )
    done = sum(_in_unit(stage, unit) for _, stage in before)
    left = total - done
    if left <= 0:
        raise ConfigError(f"--{unit} is {total:g}, but the stages before {name} already take {done:g}: give more")
    change: dict[str, Any] = (
        {"epochs": left} if unit == "epochs" else {"images": int(left) * (last.batch_size if unit == "steps" else 1)}
    )
    return replace(config, stages={**config.stages, name: replace(last, **change)})


def _taken(config: TrainConfig, unit: str, total: float, own: Own) -> float:
    """How much of the run the stages with a length of their own take."""
    kept = {name: config.stages[name] for name in own if not _is_left_out(config.stages[name])}
    for name, stage in kept.items():
        if _unit(stage) != _field(unit):
            raise ConfigError(
                f"--{unit} {total:g}: what {_typed(config, name, own)} leaves of it for the other stages is unknown, "
                f"since it is in {_unit(stage)}; give --stages.{name}.{_field(unit)}"
            )
    return sum(_in_unit(stage, unit) for stage in kept.values())


def _without_rest(unit: str, total: float, taken: float) -> str:
    if not taken:
        return f"--{unit} is {total:g}, but all stages are left out: give one of them a length"
    return f"--{unit} is {total:g}, but all stages have lengths of their own, {taken:g} in all: leave --{unit} out"


def _too_short(config: TrainConfig, unit: str, total: float, own: Own, n: int) -> str:
    kept = [_typed(config, name, own) for name in own if not _is_left_out(config.stages[name])]
    if not kept:
        return f"--{unit} is {total:g}, but there are {n} stages: give at least one for each"
    taken = " and ".join(kept)
    return f"--{unit} is {total:g}, which with {taken} leaves too little for the other stages: give more"


def _typed(config: TrainConfig, name: str, own: Own) -> str:
    """The option that sets the length of a stage, as the user typed it."""
    stage = config.stages[name]
    unit = "images" if own[name] == {"images"} else _unit(stage)
    return f"--stages.{name}.{unit} {f'{stage.epochs:g}' if unit == 'epochs' else stage.images}"


def _field(unit: str) -> str:
    """The field of a stage that sets its length: steps are counted in images."""
    return "epochs" if unit == "epochs" else "images"


def _unit(stage: StageConfig) -> str:
    return "epochs" if stage.images is None else "images"


def _length(stage: StageConfig) -> float:
    return stage.epochs if stage.images is None else float(stage.images)


def _is_left_out(stage: StageConfig) -> bool:
    return not _length(stage)


def _in_unit(stage: StageConfig, unit: str) -> float:
    """The length of a stage, in steps if those are the unit."""
    return -(-_length(stage) // stage.batch_size) if unit == "steps" else _length(stage)


def _parts(total: int, weights: Sequence[float]) -> list[int]:
    """Integers with this sum, each at least 1 and otherwise as close to its share as possible."""
    parts = _shares(total, weights)
    return parts if min(parts) > 0 else [1 + part for part in _shares(total - len(weights), weights)]


def _shares(total: int, weights: Sequence[float]) -> list[int]:
    bounds = [round(total * part / sum(weights)) for part in accumulate(weights, initial=0.0)]
    return [end - begin for begin, end in pairwise(bounds)]
