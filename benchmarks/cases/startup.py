"""The time to import and to install hdgan, in new processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Trial, Where
from hdgan.errors import ConfigError

COMMANDS = {
    "python, nothing imported": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import hdgan": ["-c", "import hdgan"],
    "import hdgan.ops": ["-c", "import hdgan.ops"],
    "hdgan --version": ["-m", "hdgan", "--version"],
    "hdgan generate --help": ["-m", "hdgan", "generate", "--help"],
}
INSTALL = "install without dependencies"
CASES: dict[str, Where] = {**dict.fromkeys(COMMANDS, "anywhere"), INSTALL: "named"}


def setup(case: str, context: Context) -> Iterator[Trial]:
    def run() -> list[Tensor]:
        if case == INSTALL:
            return _install()
        subprocess.run([sys.executable, *COMMANDS[case]], check=True, stdout=subprocess.DEVNULL)
        return []

    yield Trial("hdgan", "forward", run, list, Cost(0, 0), 0.0)


def _install() -> list[Tensor]:
    """Build a wheel of the checkout and install it, with kernels, in an empty folder."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "setup.py").is_file():
        raise ConfigError(f"{root} is no checkout of hdgan: run this in a checkout to measure the installation")
    with tempfile.TemporaryDirectory() as target:
        command = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", target, str(root)]
        subprocess.run([sys.executable, *command], check=True)
    return []


BENCHMARK = Benchmark("startup", CASES, setup, ("hdgan",), layouts=False, dtypes=False, clock="call")
