"""The commands `hdgan` and `hdgan-train`.

Errors that a user can act on end in one line and status 2. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hdgan.errors import ConfigError, HdganError

if TYPE_CHECKING:
    from hdgan.training.config import TrainConfig
    from hdgan.training.loop import Outcome

USAGE = """usage: hdgan COMMAND [OPTIONS]

commands:
  train      train a model (the same as hdgan-train)
  report     write the report of a run as it stands
  generate   make pictures from label maps
  edit       edit label maps, objects and styles in a web page
  styles     find and show the styles that instances come in
  evaluate   score runs on held-out pictures, side by side
  data       check a dataset, or pack it for fast reading
  convert    convert checkpoints of NVIDIA/pix2pixHD and pytorch-CycleGAN-and-pix2pix to hdgan's and back
  reproduce  train and score the paper's comparisons and ablations on the built-in scenes
  bench      measure speed and memory against eager PyTorch, torch.compile and NVIDIA's code
  info       what this installation can do: versions, GPUs, backends

hdgan COMMAND --help tells more; hdgan --version prints the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hdgan`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "report": _report,
        "generate": _generate,
        "edit": _edit,
        "styles": _styles,
        "evaluate": _evaluate,
        "data": _data,
        "convert": _convert,
        "reproduce": _reproduce,
        "bench": _bench,
        "info": _info,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"hdgan {version('hdgan')}")
        return 0
    command = commands.get(arguments[0])
    if command is None:
        print(f"hdgan: there is no command {arguments[0]!r}\n{USAGE}", file=sys.stderr)
        return 2
    return _guarded(command, arguments[1:])


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run `hdgan-train`."""
    return _guarded(_train, list(sys.argv[1:] if arguments is None else arguments))


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return command(arguments)
    except HdganError as error:
        print(f"hdgan: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hdgan: interrupted", file=sys.stderr)
        return 130


def _train(arguments: list[str]) -> int:
    from hdgan.training import PRESETS, load_config, train

    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    resume = _take_option(arguments, "--resume")
    if resume is not None:
        run = Path(resume)
        if arguments and arguments[0] in PRESETS:
            raise ConfigError(f"--resume takes the config of {run}: leave the preset {arguments[0]} out")
        saved = replace(load_config(run), out=run)
        description = f"Continue the run in {run}. Options change its config, for example to make a stage longer."
        config = tyro.cli(
            type(saved),
            default=saved,
            prog="hdgan-train --resume RUN",
            description=description,
            args=arguments,
            config=_FAMILY_FROM_DEFAULT,
        )
        _refuse_idle_epochs(arguments, config)
        if config.out != run:
            raise ConfigError(f"--resume continues in {run}: to branch off into {config.out}, use --init-from {run}")
        return _rehearse(config, resume=True) if dry_run else _status(train(config, resume=True))
    presets = {name: ((preset.__doc__ or "").strip(), preset()) for name, preset in PRESETS.items()}
    if not arguments or (arguments[0].startswith("--") and arguments[0] != "--help"):
        arguments = ["demo", *arguments]
    config = tyro.extras.overridable_config_cli(
        presets, prog="hdgan-train", description=_TRAIN_HELP, args=arguments, config=_FAMILY_FROM_DEFAULT
    )
    _refuse_idle_epochs(arguments, config)
    return _rehearse(config) if dry_run else _status(train(config))


def _refuse_idle_epochs(arguments: list[str], config: TrainConfig) -> None:
    """Refuse an option of epochs where the preset or the run says the stage's length in images, which go first."""
    given = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    for name, stage in config.stages.items():
        option, instead = f"--stages.{name}.epochs", f"--stages.{name}.images"
        if option in given and stage.images is not None:
            raise ConfigError(f"{option} has no effect while {instead} is {stage.images}: add {instead} None")


def _rehearse(config: TrainConfig, *, resume: bool = False) -> int:
    from rich.console import Console

    from hdgan.training.rehearsal import rehearse

    rehearse(config, Console(), resume=resume)
    return 0


def _status(outcome: Outcome) -> int:
    """0 for a finished run; 130, as for any command that Ctrl-C ended, for one that was saved before its end."""
    return 0 if outcome.finished else 130


_FAMILY_FROM_DEFAULT = (tyro.conf.AvoidSubcommands,)
"""The model's family is the preset's or the run's: no option changes it."""
_TRAIN_HELP = """Train an image model.

hdgan-train: on the built-in street scenes (the preset demo).

hdgan-train PRESET --data.root FOLDER: on your data; hdgan-train PRESET --help lists all options.

hdgan-train PRESET … --dry-run: parameters, memory, steps and time of each stage, after a few steps of it.

hdgan-train --resume RUN: continue a run exactly where it was saved.

torchrun --nproc-per-node N -m hdgan train PRESET …: on N GPUs."""


def _take_option(arguments: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from the arguments and return the value."""
    for i, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return arguments.pop(i).split("=", 1)[1]
        if argument == name:
            if i + 1 == len(arguments):
                raise ConfigError(f"{name} needs the folder of a run")
            value = arguments[i + 1]
            del arguments[i : i + 2]
            return value
    return None


def _report(arguments: list[str]) -> int:
    from hdgan.training.report import write_report

    def report(run: Annotated[Path, tyro.conf.Positional], /) -> int:
        """Write report.html of a run as it stands: while it trains, or after it was killed.

        Args:
            run: folder of the run.
        """
        print(write_report(run).resolve())
        return 0

    return tyro.cli(report, prog="hdgan report", args=arguments)


def _generate(arguments: list[str]) -> int:
    from hdgan.inference.command import generate

    return tyro.cli(generate, prog="hdgan generate", args=arguments)


def _edit(arguments: list[str]) -> int:
    from hdgan.editor.command import edit

    return tyro.cli(edit, prog="hdgan edit", args=arguments)


def _styles(arguments: list[str]) -> int:
    from hdgan.styles.command import COMMANDS

    description = (
        "Find and show the styles that instances come in: first encode, then cluster; after that `hdgan generate "
        "--styles random` draws among them."
    )
    return tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="hdgan styles", description=description, args=arguments)


def _evaluate(arguments: list[str]) -> int:
    from hdgan.evaluation.command import evaluate

    return tyro.cli(evaluate, prog="hdgan evaluate", args=arguments)


def _data(arguments: list[str]) -> int:
    from hdgan.data.check import check
    from hdgan.data.pack import pack

    return tyro.extras.subcommand_cli_from_dict({"check": check, "pack": pack}, prog="hdgan data", args=arguments)


def _convert(arguments: list[str]) -> int:
    from hdgan.interop import convert

    return tyro.cli(convert, prog="hdgan convert", args=arguments)


def _reproduce(arguments: list[str]) -> int:
    from hdgan.reproduce.command import report, reproduce

    if arguments[:1] == ["report"]:
        return tyro.cli(report, prog="hdgan reproduce report", args=arguments[1:])
    return tyro.cli(reproduce, prog="hdgan reproduce", args=arguments)


def _bench(arguments: list[str]) -> int:
    if arguments[:1] == ["report"]:
        from hdgan.benchmarks.report import report

        return tyro.cli(report, prog="hdgan bench report", args=arguments[1:])
    if arguments[:1] == ["profile"]:
        from hdgan.benchmarks.profiling import profile

        return tyro.cli(profile, prog="hdgan bench profile", args=arguments[1:])
    from hdgan.benchmarks.command import bench

    return tyro.cli(bench, prog="hdgan bench", args=arguments)


def _info(arguments: list[str]) -> int:
    from hdgan.info import info

    def run(*, json: bool = False) -> int:
        """Print versions, GPUs, and which backends of the ops can run here, or why not.

        Args:
            json: print JSON, for programs.
        """
        return info(as_json=json)

    return tyro.cli(run, prog="hdgan info", args=arguments)
