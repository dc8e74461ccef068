"""The programs `hdgan` and `hdgan-train`.

An error that a user can act on ends in one line and status 2. Only the chosen command imports heavy modules.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hdgan.commands.parser import run_command, run_one_of
from hdgan.commands.process import INTERRUPTED, PIPE_CLOSED, REFUSED, sensible_width
from hdgan.commands.urls import refuse_urls, without_hosts
from hdgan.config.options import typed_as
from hdgan.errors import ConfigError, HdganError, OtherProcessError, OutputClosed
from hdgan.sharding.environment import place_of

USAGE = """usage: hdgan COMMAND [OPTIONS]

commands:
  train      train a model (the same as hdgan-train)
  report     write the current report of a run
  generate   generate images from label maps
  video      generate a video from the label maps of its frames
  edit       edit label maps, objects and styles in a web page
  styles     find and show the styles of instances
  evaluate   score runs on held-out images, side by side
  data       convert or check a dataset, pack it for fast reading, or render one to try things on
  convert    convert checkpoints of NVIDIA/pix2pixHD and pytorch-CycleGAN-and-pix2pix, or write a run as one file
  export     write a model as a program for ONNX Runtime or for PyTorch alone
  push       upload a model with its card to the Hugging Face Hub
  reproduce  train and score the paper's comparisons and ablations on the built-in scenes
  bench      measure speed and memory against eager PyTorch, torch.compile and NVIDIA's code
  info       what this installation can do: versions, GPUs, backends; --check tests the kernels on your device

hdgan COMMAND --help tells more; hdgan --version prints the version.
torchrun --nproc-per-node N -m hdgan COMMAND shares the work of train, generate, video, styles encode, evaluate,
data check and data pack among N processes."""

COMMANDS = {
    "report": "hdgan.commands.report:report",
    "generate": "hdgan.commands.generate:generate",
    "video": "hdgan.commands.video:video",
    "edit": "hdgan.commands.edit:edit",
    "styles encode": "hdgan.commands.styles:encode",
    "styles cluster": "hdgan.commands.styles:cluster",
    "styles show": "hdgan.commands.styles:show",
    "styles measure": "hdgan.commands.styles:measure",
    "styles import-nvidia": "hdgan.commands.styles:import_nvidia",
    "styles export-nvidia": "hdgan.commands.styles:export_nvidia",
    "evaluate": "hdgan.commands.evaluate:evaluate",
    "data check": "hdgan.commands.data:check",
    "data pack": "hdgan.commands.data:pack",
    "data convert": "hdgan.commands.data_convert:convert",
    "data palette": "hdgan.commands.data_convert:palette",
    "data scenes": "hdgan.commands.data_scenes:scenes",
    "convert": "hdgan.commands.convert:convert",
    "export": "hdgan.commands.export:export",
    "push": "hdgan.commands.push:push",
    "reproduce": "hdgan.commands.reproduce:reproduce",
    "reproduce report": "hdgan.commands.reproduce:report",
    "bench": "hdgan.commands.bench:bench",
    "bench report": "hdgan.benchmarks.report:report",
    "bench profile": "hdgan.benchmarks.profiling:profile",
    "info": "hdgan.commands.info:info",
}
"""The function of each command, which is imported only when the command is chosen. `train` parses its own options."""

SHARED = ("train", "generate", "video", "styles encode", "evaluate", "data check", "data pack")
"""Commands whose work several processes share. The others would do the same work, and write the same files, in each."""

GROUPS = {
    "styles": "Find and show the styles of instances: first encode, then cluster; after that `hdgan generate --styles "
    "random` chooses among them.",
    "data": "Datasets: first convert what you have, then check it; pack makes it faster to read. "
    "scenes renders one to try things on.",
}
"""Commands that need a subcommand, and the first sentence of their help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `hdgan`."""
    return _guarded(_hdgan, list(sys.argv[1:] if arguments is None else arguments))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run `hdgan-train`."""
    return _guarded(_train, list(sys.argv[1:] if arguments is None else arguments))


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command. An error that the user or the machine has caused is printed as one line."""
    try:
        with typed_as(), sensible_width(), _quiet_unless_first():
            if any("\0" in argument for argument in arguments):
                raise ConfigError("an argument contains the character NUL, which no name can contain: leave it out")
            if any(not argument or (argument.startswith("--") and argument.endswith("=")) for argument in arguments):
                raise ConfigError(
                    "an argument is empty, perhaps from a shell variable that is not set: give a value, or leave the "
                    "option out"
                )
            return command(without_hosts(arguments))
    except OutputClosed:
        return PIPE_CLOSED
    except OtherProcessError as error:
        return REFUSED if error.told else _refused(str(error))
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
    return REFUSED


@contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Let only the first of several processes print, except for the error that ends a process.

    Raises:
        ConfigError: the environment says something impossible about the processes.
    """
    if place_of().rank == 0:
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def _require_one_process(command: str) -> None:
    """Refuse a command whose work several processes cannot share; the first process of each machine says so."""
    place = place_of()
    if place.size > 1 and command not in SHARED:
        raise OtherProcessError(
            f"`hdgan {command}` runs in one process, but torchrun has started {place.size}: start it without torchrun. "
            f"Several processes can share the work of {', '.join(SHARED)}",
            told=place.local_rank > 0,
        )


def _hdgan(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    first, *rest = arguments
    if first == "--version":
        print(f"hdgan {version('hdgan')}")
        return 0
    if first == "train":
        return _train(rest)
    two = " ".join(arguments[:2])
    if two in COMMANDS:
        _require_one_process(two)
        refuse_urls(two, rest[1:])
        return int(run_command(_function(two), f"hdgan {two}", rest[1:]))
    if first in COMMANDS:
        _require_one_process(first)
        refuse_urls(first, rest)
        return int(run_command(_function(first), f"hdgan {first}", rest))
    if first in GROUPS:
        members = {name.split()[1]: _function(name) for name in COMMANDS if name.startswith(f"{first} ")}
        return int(run_one_of(members, f"hdgan {first}", rest, GROUPS[first]))
    print(f"hdgan: there is no command {first!r}\n{USAGE}", file=sys.stderr)
    return 2


def _function(command: str) -> Callable[..., Any]:
    function: Callable[..., Any] = resolve_name(COMMANDS[command])
    return function


def _train(arguments: list[str]) -> int:
    from hdgan.commands.train import train_command

    refuse_urls("train", arguments)
    return train_command(arguments)
