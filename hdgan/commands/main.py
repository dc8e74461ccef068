"""The commands `hdgan` and `hdgan-train`.

Errors that a user can act on end in one line and status 2. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro

from hdgan.commands.parser import run_command, run_one_of
from hdgan.commands.process import INTERRUPTED, PIPE_CLOSED, sensible_width
from hdgan.config.options import typed_as
from hdgan.errors import ConfigError, HdganError, OutputClosed

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
    return _guarded(_hdgan, list(sys.argv[1:] if arguments is None else arguments))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run `hdgan-train`."""
    return _guarded(_train, list(sys.argv[1:] if arguments is None else arguments))


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command; what the user or the machine is the cause of ends in one line."""
    try:
        with typed_as(), sensible_width():
            if any("\0" in argument for argument in arguments):
                raise ConfigError("an argument holds the character NUL, which no name can have: leave it out")
            if any(not argument or (argument.startswith("--") and argument.endswith("=")) for argument in arguments):
                raise ConfigError(
                    "an argument is empty, perhaps from a shell variable that is not set: give a value, or leave the "
                    "option out"
                )
            return command(arguments)
    except OutputClosed:
        return PIPE_CLOSED
    except HdganError as error:
        return _refused(str(error))
    except OSError as error:
        if sys.flags.dev_mode or error.errno is None:
            raise
        place = f"{error.filename!s:.300}: " if error.filename is not None else ""
        return _refused(f"{place}{error.strerror}; `python -X dev -m hdgan` shows where this happened")
    except KeyboardInterrupt:
        print("hdgan: interrupted", file=sys.stderr)
        return INTERRUPTED


def _refused(why: str) -> int:
    print(f"hdgan: error: {' '.join(why.split())}", file=sys.stderr)
    return 2


def _hdgan(arguments: list[str]) -> int:
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
    return command(arguments[1:])


def _train(arguments: list[str]) -> int:
    from hdgan.commands.train import train_command

    return train_command(arguments)


def _report(arguments: list[str]) -> int:
    from hdgan.training.report import write_report

    def report(run: Annotated[Path, tyro.conf.Positional], /) -> int:
        """Write report.html of a run as it stands: while it trains, or after it was killed.

        Args:
            run: folder of the run.
        """
        print(write_report(run).resolve())
        return 0

    return run_command(report, "hdgan report", arguments)


def _generate(arguments: list[str]) -> int:
    from hdgan.commands.generate import generate

    return run_command(generate, "hdgan generate", arguments)


def _edit(arguments: list[str]) -> int:
    from hdgan.commands.edit import edit

    return run_command(edit, "hdgan edit", arguments)


def _styles(arguments: list[str]) -> int:
    from hdgan.commands.styles import COMMANDS

    description = (
        "Find and show the styles that instances come in: first encode, then cluster; after that `hdgan generate "
        "--styles random` draws among them."
    )
    return run_one_of(COMMANDS, "hdgan styles", arguments, description)


def _evaluate(arguments: list[str]) -> int:
    from hdgan.commands.evaluate import evaluate

    return run_command(evaluate, "hdgan evaluate", arguments)


def _data(arguments: list[str]) -> int:
    from hdgan.data.check import check
    from hdgan.data.pack import pack

    return run_one_of({"check": check, "pack": pack}, "hdgan data", arguments)


def _convert(arguments: list[str]) -> int:
    from hdgan.commands.convert import convert

    return run_command(convert, "hdgan convert", arguments)


def _reproduce(arguments: list[str]) -> int:
    from hdgan.commands.reproduce import report, reproduce

    if arguments[:1] == ["report"]:
        return run_command(report, "hdgan reproduce report", arguments[1:])
    return run_command(reproduce, "hdgan reproduce", arguments)


def _bench(arguments: list[str]) -> int:
    if arguments[:1] == ["report"]:
        from hdgan.benchmarks.report import report

        return run_command(report, "hdgan bench report", arguments[1:])
    if arguments[:1] == ["profile"]:
        from hdgan.benchmarks.profiling import profile

        return run_command(profile, "hdgan bench profile", arguments[1:])
    from hdgan.commands.bench import bench

    return run_command(bench, "hdgan bench", arguments)


def _info(arguments: list[str]) -> int:
    from hdgan.commands.info import info

    def show(*, json: bool = False) -> int:
        """Print versions, GPUs, and which backends of the ops can run here, or why not.

        Args:
            json: print JSON, for programs.
        """
        return info(as_json=json)

    return run_command(show, "hdgan info", arguments)
