"""The rows of results: one CSV file for each device, in which a new row replaces the old one with the same key."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from hdgan.allocator import allocator_name
from hdgan.errors import ConfigError
from hdgan.files.csv import read_csv, write_csv

CHECKOUT = Path(__file__).resolve().parents[1]
PUBLISHED = Path("benchmarks/results")
"""Below a checkout: the rows that its pages are made of."""
OWN = Path("hdgan-bench")
"""Rows and report of a user, below the current folder."""
Key = tuple[str, ...]
KEY = ("benchmark", "case", "direction", "implementation", "layout", "dtype")
"""What two rows must have in common for the newer one to replace the older one."""
COLUMNS = {"benchmark": "work", "implementation": "contestant"}
"""Columns whose names in files differ from the fields: files keep the names of version 0.1.0."""


@dataclass(frozen=True)
class Measurement:
    """One row. Bytes and operations are the least that the case needs, not what the implementation used."""

    benchmark: str
    case: str
    direction: str
    implementation: str
    layout: str
    dtype: str
    median_ms: float
    q20_ms: float
    q80_ms: float
    rounds: int
    speedup: float | None
    """Against eager PyTorch in NCHW, in the same run."""
    ceiling_percent: float | None
    """The time that the slower of copying the bytes and multiplying the operations would take, of the median."""
    bound: str
    """Which of the two: copy or matmul."""
    error: float
    """Relative to float32 truth."""
    tolerance: float
    bytes: int
    flops: int
    saved_bytes: int | None
    """Kept for backward, parameters and inputs aside."""
    peak_bytes: int | None
    """Most that a GPU had allocated on top of what there was before."""
    copy_gb_s: float
    """Ceiling, measured in the same run."""
    matmul_tflop_s: float
    device: str
    threads: int
    hdgan: str
    torch: str
    triton: str
    cuda: str
    python: str
    date: str
    allocator: str = ""
    """Of CPU memory, under which all implementations ran; empty in rows of older versions."""
    clock: str = ""
    """What was timed on a GPU, kernels or a call (`timing.Clock`); empty on a CPU and in rows of older versions."""
    launch_ms: float | None = None
    """What the CPU took to queue a call for an idle GPU."""
    own_copy_gb_s: float | None = None
    """Of a copy of as many bytes as the row's, where copying is what bounds it."""

    @property
    def key(self) -> Key:
        return tuple(getattr(self, name) for name in KEY)


def device_name(device: torch.device) -> str:
    """The name of the device, as it gives it itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    return f"{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


@cache
def versions() -> dict[str, str]:
    """The columns of a row that say what it was measured with."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = ""
    return {
        "hdgan": f"{version('hdgan')}{_revision(CHECKOUT)}",
        "torch": torch.__version__,
        "triton": triton,
        "cuda": torch.version.cuda or "",
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "allocator": allocator_name(),
    }


def _revision(root: Path) -> str:
    """The commit of a checkout, and whether files have changed since; nothing for an installation.

    What measuring itself changes does not count: rows, and the pages made of them. HDGAN_REVISION names the commit of a
    copy that is without its git folder.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # Without its own setup.py, root is a folder of packages, which may lie in a repository of the user's.
        if not (root / "setup.py").is_file() or Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return ""
        made = (f":!{name}" for name in ("benchmarks/results", "docs", "README.md"))
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *made)
        return f"+{git('rev-parse', '--short=9', 'HEAD')}{'-dirty' if changed else ''}"
    except (OSError, subprocess.SubprocessError):
        named = os.environ.get("HDGAN_REVISION", "")
        return f"+{named}" if named else ""


def folder_for(out: Path | None, publish: bool, checkout: Path = CHECKOUT) -> Path:
    """The folder of the rows: one of the user's, or the one that a checkout publishes.

    Raises:
        ConfigError: both are asked for, or this is no checkout.
    """
    if not publish:
        return out or OWN
    if out is not None:
        raise ConfigError(f"--publish writes to the rows of the checkout and --out to {out}: give only one of them")
    if not (checkout / PUBLISHED).is_dir():
        raise ConfigError(
            f"--publish needs a checkout of hdgan, but {checkout} has no {PUBLISHED}: leave it out, which writes to "
            f"{OWN}, or choose a folder with --out"
        )
    return checkout / PUBLISHED


def path_for(folder: Path, device: str) -> Path:
    """The file of a device's rows."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.csv"


def read(path: Path) -> list[Measurement]:
    """Read the rows of a file.

    Raises:
        DataError: it does not hold rows of this version.
    """
    fields_of = {column: name for name, column in COLUMNS.items()}
    return read_csv(path, Measurement, "move it away and measure again", renamed=fields_of)


def merge(old: Iterable[Measurement], new: Iterable[Measurement]) -> list[Measurement]:
    """The latest row of each key, in the order in which the keys first appear."""
    return list({row.key: row for row in (*old, *new)}.values())


def write(path: Path, new: Iterable[Measurement], failed: Iterable[Key] = ()) -> None:
    """Add rows to a file, in place of those with the same keys, and drop the old rows of keys that failed.

    Raises:
        DataError: the file is not one of ours.
        HdganError: it cannot be written.
    """
    dropped = set(failed)
    old = [row for row in read(path) if row.key not in dropped] if path.is_file() else []
    names = [field.name for field in fields(Measurement)]
    lines = ([_text(getattr(row, name)) for name in names] for row in merge(old, new))
    write_csv(path, [COLUMNS.get(name, name) for name in names], lines)


def publish(folder: Path) -> None:
    """Add the rows of a folder to those that this checkout publishes.

    Raises:
        ConfigError: this is no checkout.
        DataError: a file is not one of ours.
    """
    target = folder_for(None, publish=True)
    for path in sorted(folder.glob("*.csv")):
        write(target / path.name, read(path))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
