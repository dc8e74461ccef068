"""`hdgan-train`: a preset or a run, the options that change it, and what to do with it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import tyro
from rich.console import Console

from hdgan.commands.old_options import with_todays_names
from hdgan.commands.parser import run_command
from hdgan.commands.process import work_begins
from hdgan.commands.run_length import own_lengths, with_length
from hdgan.commands.short_options import (
    ResumeOptions,
    ShortOptions,
    apply,
    hiding,
    of_config,
    spellings,
    total_length,
)
from hdgan.config.needs import beginning_with, settled
from hdgan.config.options import typed_as
from hdgan.errors import ConfigError
from hdgan.families.common.train_config import TrainConfig
from hdgan.families.registry import PRESETS
from hdgan.training.dry_run import dry_run
from hdgan.training.loop import train
from hdgan.training.run_folder import load_config

USAGE = """usage: hdgan-train [PRESET] [OPTIONS]
       hdgan-train --resume RUN [OPTIONS]

Train an image model. Without a preset: the demo.

  hdgan-train                             on the built-in street scenes
  hdgan-train PRESET --data.root FOLDER   on your data
  hdgan-train PRESET --help               its most common options; --help-all lists all
  hdgan-train PRESET ... --dry-run        memory, steps and time; without training
  hdgan-train --resume RUN                continue a run exactly where it was saved
  torchrun --nproc-per-node N -m hdgan train PRESET ... on N GPUs

presets:"""
_BESIDE = "These are the most common options. --help-all lists all of them; a long option overrides a short one."
_HELP = ("-h", "--help")
_SWITCHES = ("recompute", "cuda-graphs")
"""Options that are True, False or auto."""


def train_command(arguments: list[str]) -> int:
    """Run `hdgan-train`.

    Returns:
        0 for a finished run; 130, as for any command ended by Ctrl-C, for a run that was saved before its end.
    """
    only_estimate = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    if arguments[:1] in ([option] for option in _HELP):
        print(_usage({name: preset.__doc__ or "" for name, preset in PRESETS.items()}))
        return 0
    run = _take_resume(arguments)
    if run is None:
        before, prog, about, kind = *_preset(arguments), ShortOptions
    else:
        if arguments and arguments[0] in PRESETS:
            raise ConfigError(f"--resume takes the config of {run}: leave the preset {arguments[0]} out")
        before, prog, kind = replace(load_config(run), out=run), "hdgan-train --resume RUN", ResumeOptions
        about = f"Continue the run in {run}. Options change its config, for example to make it longer."
    arguments = _with_values(with_todays_names(arguments, before))
    with typed_as(spellings(arguments, list(before.stages))):
        with beginning_with(before):
            config = _changed(before, kind, prog, about, arguments)
        if run is not None and config.out != run:
            raise ConfigError(f"--resume continues in {run}: to branch off into {config.out}, use --init-from {run}")
        work_begins()
        if only_estimate:
            dry_run(config, Console(), resume=run is not None)
            return 0
        return 0 if train(config, resume=run is not None).finished else 130


def _with_values(arguments: list[str]) -> list[str]:
    """The arguments, with --recompute, --no-recompute and the like as the values True and False that they stand for."""
    full: list[str] = []
    for argument, following in pairwise([*arguments, ""]):
        name = argument.replace("_", "-").removeprefix("--").removeprefix("no-")
        has_value = following != "" and not following.startswith("-")
        if not argument.startswith("--") or name not in _SWITCHES or has_value:
            full.append(argument)
        else:
            full += [f"--{name}", str(not argument.startswith("--no"))]
    return full


def _preset(arguments: list[str]) -> tuple[TrainConfig, str, str]:
    """Remove the preset from the arguments and return its config, the name of the command and what it is for."""
    name = "demo" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}: take one of {', '.join(PRESETS)}")
    return PRESETS[name](), f"hdgan-train {name}", PRESETS[name].__doc__ or ""


def _changed(before: TrainConfig, kind: type[ShortOptions], prog: str, about: str, arguments: list[str]) -> TrainConfig:
    """A config with the changes that the arguments make. No option changes the model's family."""
    everything = "--help-all" in arguments
    arguments = ["--help"] if everything else arguments
    with suppress(*([SystemExit] if everything else [])):
        short, rest = run_command(
            kind, prog, arguments, default=of_config(before, kind), description=f"{about}\n\n{_BESIDE}",
            return_unknown_args=True,
        )  # fmt: skip
    if everything:
        print("\nAll options of the configuration:\n")
        short, rest = of_config(before, kind), ["--help"]
    config = apply(short, before)
    if rest:
        if (network := _typed_value(rest, "--loss.network")) is not None:
            config = replace(config, loss=replace(config.loss, **config.loss.defaults_for(network)))
        default = hiding(config) if everything and kind is ResumeOptions else config
        avoid = (tyro.conf.AvoidSubcommands,)
        config = run_command(type(default), prog, rest, default=default, description=about, config=avoid)
    own = own_lengths(rest, config.stages)
    return settled(with_length(config, total_length(short, arguments), own, resumes=kind is ResumeOptions))


def _typed_value(arguments: list[str], option: str) -> str | None:
    """The value that an option gets; None without it."""
    found = None
    for argument, following in pairwise([*arguments, ""]):
        name, has_value, value = argument.partition("=")
        if name.replace("_", "-") == option:
            found = value if has_value else following
    return found


def _usage(presets: Mapping[str, str]) -> str:
    indent = max(map(len, presets)) + 4
    width = shutil.get_terminal_size().columns
    entries = (
        textwrap.fill(text, width, initial_indent=f"  {name}".ljust(indent), subsequent_indent=" " * indent)
        for name, text in presets.items()
    )
    return "\n".join([USAGE, *entries])


def _take_resume(arguments: list[str]) -> Path | None:
    """Remove `--resume RUN` or `--resume=RUN` from the arguments and return the run."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--resume="):
            return Path(arguments.pop(i).split("=", 1)[1])
        if argument == "--resume":
            if i + 1 == len(arguments) or arguments[i + 1].startswith("-"):
                raise ConfigError(
                    "--resume needs the folder of a run, for example --resume runs/demo; "
                    "--resume RUN --help lists the options that it takes"
                )
            del arguments[i]
            return Path(arguments.pop(i))
    return None
