"""`hdgan bench --compare REV`: the same cases measured by another revision, in its own worktree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from hdgan.allocator import same_allocator
from hdgan.benchmarks import rows
from hdgan.benchmarks.display import run_suite, side_by_side, tell
from hdgan.benchmarks.rows import Measurement
from hdgan.benchmarks.suite import Selection, Suite
from hdgan.errors import ConfigError


def compare_with(revision: str, suite: Suite, console: Console) -> int:
    """Measure `revision`, then this tree, and print their rows side by side. Writes no rows.

    Raises:
        ConfigError: this is no checkout, there is no such revision, or it cannot be built or measured.
    """
    check_revision(revision)
    with worktree(revision, suite.selection.device.type == "cuda", console) as tree:
        before = measure_in(tree, suite.selection)
    run_suite(suite)
    console.print(side_by_side(before, suite.rows, revision))
    return tell(suite, console)


def check_revision(revision: str) -> None:
    if git("rev-parse", "--git-dir") is None:
        raise ConfigError(f"{rows.CHECKOUT} is not a git checkout, which --compare needs")
    if git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise ConfigError(f"--compare {revision}: there is no such revision; git log lists the revisions")
    if git("cat-file", "-e", f"{revision}:benchmarks/suite.py") is None:
        raise ConfigError(f"--compare {revision}: it has no hdgan bench; give a later revision")


def git(*arguments: str) -> str | None:
    """What git says in this checkout, or None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(rows.CHECKOUT), *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextmanager
def worktree(revision: str, cuda: bool, console: Console) -> Iterator[Path]:
    """A checkout of a revision with its extension built, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hdgan-compare-") as folder:
        tree = Path(folder) / "tree"
        if git("worktree", "add", "--detach", str(tree), revision) is None:
            raise ConfigError(f"--compare {revision}: git worktree add {tree} fails; run it to see why")
        try:
            console.print(f"building {revision}")
            call(tree, "setup.py", "-q", "build_ext", "--inplace", HDGAN_BUILD="cuda" if cuda else "cpu")
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def measure_in(tree: Path, options: Selection) -> list[Measurement]:
    """The rows of another tree, by its own `hdgan bench`."""
    results = tree / "compared"
    values = {
        "--device": [str(options.device)],
        "--dtype": options.dtypes,
        "--layout": options.layouts,
        "--contestants": options.implementations,  # as every revision has it
        "--passes": options.passes,
        "--only": [options.only] if options.only else [],
        "--threads": [str(torch.get_num_threads())],
        "--seconds": [str(options.seconds)],
        "--minutes": [] if options.minutes is None else [str(options.minutes)],
        "--reference": [] if options.reference is None else [str(options.reference.resolve())],
        "--results": [str(results)],
    }
    given = [part for option, parts in values.items() if parts for part in (option, *parts)]
    # Status 1 means that implementations have no number; the table then lacks them.
    arguments = ("-m", "hdgan", "bench", *options.benchmarks, *given, *(["--large"] * options.large))
    call(tree, *arguments, allowed=(0, 1), **same_allocator())
    return [row for path in results.glob("*.csv") for row in rows.read(path)]


def call(tree: Path, *arguments: str, allowed: tuple[int, ...] = (0,), **environment: str) -> None:
    """Run Python in another tree, so that it imports the package of that tree."""
    settings = os.environ | {"PYTHONPATH": str(tree)} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=settings, capture_output=True, text=True)
    if done.returncode not in allowed:
        output = (done.stderr or done.stdout).strip().splitlines() or ["it printed nothing"]
        raise ConfigError(f"--compare: python {' '.join(arguments[:3])} of the other revision failed: {output[-1]}")
