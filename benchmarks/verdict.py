"""The page that says for each aim of a quick run on a GPU whether it was reached: `python -m hdgan.benchmarks.verdict`.

An aim is reached only if everything that it is about was measured; what has no number counts as not measured.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from hdgan import ops
from hdgan.benchmarks import rows
from hdgan.benchmarks.quick import Planned, plan
from hdgan.benchmarks.rows import Measurement
from hdgan.errors import HdganError
from hdgan.files import write_text
from hdgan.wording import count, markdown_table

COPY_PERCENT = 85.0
"""Of the device's copy bandwidth, which every op reaches."""
LAUNCH_MICROSECONDS = {"forward": 30.0, "both": 80.0}
"""What the CPU takes at most to queue an op, by pass."""
STEPS = {
    "build": "The extension builds.",
    "tests: CUDA": "The tests of the CUDA kernels and of the networks pass.",
    "tests: Triton": "The tests of the Triton kernels pass.",
    "tests: many elements": "Tensors of more than 2^31 elements are right.",
    "memcheck": "memcheck finds no access out of bounds.",
}
"""The steps of the script that are aims."""
OURS = ("cpu", "cuda", "triton")
OK = "ok"

Outcome = Literal["reached", "missed", "not measured"]
Cell = tuple[str, str, str, str]
"""Benchmark, case, pass and layout."""


class Finished(NamedTuple):
    """A step of run_gpu.sh as it notes it: its status is ok, or says what went wrong."""

    name: str
    status: str
    seconds: str


class Aim(NamedTuple):
    what: str
    outcome: Outcome
    detail: str


def read_steps(path: Path) -> list[Finished]:
    """The steps that a script noted, the last of each name; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list({line[0]: Finished(*line) for line in csv.reader(file, delimiter="\t")}.values())


def aims_of_steps(steps: Iterable[Finished]) -> list[Aim]:
    found = {step.name: step.status for step in steps}
    aims = []
    for name, what in STEPS.items():
        status = found.get(name, "did not run")
        failed = status.startswith("failed") or status == "out of time"
        aims.append(Aim(what, "reached" if status == OK else "missed" if failed else "not measured", status))
    return aims


def cells_of(parts: Iterable[Planned]) -> list[Cell]:
    return [
        (part.benchmark, part.case, one, layout) for part in parts for one in part.passes for layout in part.layouts
    ]


class Rows:
    """Rows of one run by cell and implementation."""

    def __init__(self, measured: Iterable[Measurement]) -> None:
        self._rows = {(row.benchmark, row.case, row.direction, row.layout, row.implementation): row for row in measured}

    def get(self, cell: Cell, implementation: str) -> Measurement | None:
        return self._rows.get((*cell, implementation))


def judge(
    what: str,
    cells: Sequence[Cell],
    number: Callable[[Cell], float | None],
    limit: float,
    unit: str,
    most: bool = False,
) -> Aim:
    """An aim that a number of every cell is at least, or at most, a limit."""
    numbers = {cell: found for cell in cells if (found := number(cell)) is not None}
    good = sum(found <= limit if most else found >= limit for found in numbers.values())
    missing = len(cells) - len(numbers)
    outcome: Outcome = "missed" if good < len(numbers) else "reached" if numbers and not missing else "not measured"
    parts = [f"{good} of {len(cells)}"] if cells else []
    if numbers:
        worst = (max if most else min)(numbers, key=lambda cell: numbers[cell])
        parts.append(f"worst {numbers[worst]:.3g} {unit}: {', '.join(worst)}")
    if missing:
        parts.append(f"{missing} without a number")
    return Aim(what, outcome, "; ".join(parts) or "nothing to compare with")


def aims_of_rows(measured: Sequence[Measurement], parts: Sequence[Planned], name: str) -> list[Aim]:
    """The aims of speed of one of our implementations."""
    found = Rows(measured)
    everything = cells_of(part for part in parts if name in part.implementations)
    of_ops = [cell for cell in everything if cell[0] in ops.__all__]
    compiled = cells_of(part for part in parts if "compile" in part.implementations)

    def percent(cell: Cell) -> float | None:
        row = found.get(cell, name)
        return row.ceiling_percent if row else None

    def speedup(other: str, cell: Cell) -> float | None:
        row, than = found.get(cell, name), found.get(cell, other)
        return than.median_ms / row.median_ms if row and than else None

    def launch(cell: Cell) -> float | None:
        row = found.get(cell, name)
        return 1e3 * row.launch_ms if row and row.launch_ms else None

    aims = [
        judge(
            f"{name}: every op reaches {COPY_PERCENT:.0f} % of the device's copy bandwidth.",
            [cell for cell in of_ops if cell[2] != "both"],
            percent,
            COPY_PERCENT,
            "%",
        ),
        judge(f"{name}: faster than eager PyTorch.", everything, partial(speedup, "eager"), 1, "x"),
        judge(f"{name}: faster than torch.compile.", compiled, partial(speedup, "compile"), 1, "x"),
    ]
    for one, limit in LAUNCH_MICROSECONDS.items():
        cells = [cell for cell in of_ops if cell[2] == one]
        what = f"{name}: the CPU queues an op ({one}) in {limit:.0f} µs."
        aims.append(judge(what, cells, launch, limit, "µs", most=True))
    return aims


def table_of(measured: Sequence[Measurement]) -> str:
    found = Rows(measured)
    lines = []
    for row in measured:
        cell = (row.benchmark, row.case, row.direction, row.layout)
        others = [found.get(cell, name) for name in ("eager", "compile")]
        own = row.own_copy_gb_s and 100 * row.bytes / (row.own_copy_gb_s * 1e6) / row.median_ms
        lines.append([
            *cell, row.implementation, f"{row.median_ms:.4g}",
            _text(row.ceiling_percent if row.bound == "copy" else None, ".0f"), _text(own, ".0f"),
            *(_text(other.median_ms / row.median_ms if other else None, ".2f") for other in others),
            _text(row.launch_ms and 1e3 * row.launch_ms, ".0f"), row.clock,
        ])  # fmt: skip
    header = ["benchmark", "case", "pass", "layout", "implementation", "ms", "% of copy", "% of a copy of its size"]
    return markdown_table([*header, "x eager", "x compile", "launch, µs", "timed"], lines)


def _text(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def page(device: str, steps: Sequence[Finished], measured: Sequence[Measurement], parts: Sequence[Planned]) -> str:
    """The page in Markdown."""
    aims = aims_of_steps(steps)
    for name in OURS:
        if any(name in part.implementations for part in parts):
            aims += aims_of_rows(measured, parts, name)
    reached = sum(aim.outcome == "reached" for aim in aims)
    lines = [f"# Verdict: {device}", f"{reached} of {count(len(aims), 'aim')} reached."]
    if measured:
        row = measured[-1]
        versions = f"hdgan {row.hdgan}, PyTorch {row.torch}, CUDA {row.cuda}, triton {row.triton}, {row.date}"
        lines.append(f"{versions}. A copy moves {row.copy_gb_s:.0f} GB/s, read and written together.")
    lines.append(markdown_table(["aim", "outcome", "detail"], [list(aim) for aim in aims]))
    lines.append(markdown_table(["step", "status", "seconds"], [list(step) for step in steps]))
    lines.append(table_of(measured))
    return "\n\n".join(lines) + "\n"


def verdict(
    steps: Annotated[Path, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional], /, device: str = "cuda"
) -> int:
    """Write OUT/verdict.md from the steps of a script and the rows in OUT.

    Args:
        steps: the file in which the script notes its steps.
        out: the folder with rows/<device>.csv.
        device: cuda, or cpu for a rehearsal.
    """
    measured = [row for path in sorted((out / "rows").glob("*.csv")) for row in rows.read(path)]
    name = measured[0].device if measured else "no rows"
    write_text(out / "verdict.md", page(name, read_steps(steps), measured, plan(device)))
    print(out / "verdict.md")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(verdict))
    except HdganError as error:
        sys.exit(f"hdgan: error: {error}")
