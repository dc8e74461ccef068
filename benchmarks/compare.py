"""`hdgan bench --compare REV`: the same jobs by another revision, in a worktree of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hdgan.benchmarks import rows
from hdgan.benchmarks.rows import Row
from hdgan.benchmarks.suite import Options, Suite
from hdgan.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
"""Of the checkout."""


def compare_with(revision: str, options: Options, suite: Suite, run: Callable[[], None], console: Console) -> int:
    """Measure `revision`, then this tree by `run`, and print their rows side by side. Keeps no rows.

    Raises:
        ConfigError: this is no checkout, there is no such revision, or it cannot be built or measured.
    """
    check_revision(revision)
    with worktree(revision, options.device.type == "cuda", console) as tree:
        before = measure_in(tree, options)
    run()
    console.print(side_by_side(before, suite.rows, revision))
    for failure in suite.failures:
        console.print(f"no number: {failure.what}: {failure.why}", style="red", soft_wrap=True)
    return 1 if suite.failures else 0


def check_revision(revision: str) -> None:
    if git("rev-parse", "--git-dir") is None:
        raise ConfigError(f"{ROOT} is no git checkout: --compare needs one")
    if git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise ConfigError(f"--compare {revision}: there is no such revision; git log names those that there are")
    if git("cat-file", "-e", f"{revision}:benchmarks/command.py") is None:
        raise ConfigError(f"--compare {revision}: it has no hdgan bench; name a later revision")


def git(*arguments: str) -> str | None:
    """What git says in this checkout, or None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextmanager
def worktree(revision: str, cuda: bool, console: Console) -> Iterator[Path]:
    """A checkout of a revision with its extension built, gone afterwards."""
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


def measure_in(tree: Path, options: Options) -> list[Row]:
    """The rows of another tree, by its own `hdgan bench`."""
    results = tree / "compared"
    values = {
        "--device": [str(options.device)],
        "--dtype": options.dtypes,
        "--layout": options.layouts,
        "--contestants": options.contestants,
        "--passes": options.passes,
        "--only": [options.only] if options.only else [],
        "--threads": [str(torch.get_num_threads())],
        "--seconds": [str(options.seconds)],
        "--minutes": [] if options.minutes is None else [str(options.minutes)],
        "--reference": [] if options.reference is None else [str(options.reference.resolve())],
        "--results": [str(results)],
    }
    given = [part for option, parts in values.items() if parts for part in (option, *parts)]
    # Status 1 tells of contestants without numbers, which then are missing in the table.
    call(tree, "-m", "hdgan", "bench", *options.works, *given, *(["--large"] * options.large), allowed=(0, 1))
    return [row for path in results.glob("*.csv") for row in rows.read(path)]


def call(tree: Path, *arguments: str, allowed: tuple[int, ...] = (0,), **environment: str) -> None:
    """Run Python in another tree, whose package it then imports."""
    settings = os.environ | {"PYTHONPATH": str(tree)} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=settings, capture_output=True, text=True)
    if done.returncode not in allowed:
        told = (done.stderr or done.stdout).strip().splitlines() or ["nothing said"]
        raise ConfigError(f"--compare: python {' '.join(arguments[:3])} of the other revision failed: {told[-1]}")


def side_by_side(before: list[Row], after: list[Row], revision: str) -> Table:
    """A line for every key of either; more than 1 is faster now."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("work", overflow="fold")
    for name in (f"{revision}, ms", "now, ms", "20-80 %", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    old, new = ({row.key: row for row in measured} for measured in (before, after))
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key), new.get(key)
        table.add_row(
            ", ".join(part for part in key if part != "-"),
            f"{was.median_ms:.3g}" if was else "-",
            f"{now.median_ms:.3g}" if now else "-",
            f"{now.q20_ms:.3g}-{now.q80_ms:.3g}" if now else "",
            f"{was.median_ms / now.median_ms:.2f}x" if was and now else "",
        )
    return table
