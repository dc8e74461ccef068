"""What `hdgan bench` shows: the case that runs, the rows, and what has no number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hdgan.benchmarks import rows
from hdgan.benchmarks.rows import Measurement
from hdgan.benchmarks.suite import Case, Suite
from hdgan.progress import showing_progress


def run_suite(suite: Suite, path: Path | None = None) -> None:
    """Run a suite and show the case that runs; with a path, write the rows after each case and when interrupted."""

    def save() -> None:
        if path is not None and (suite.rows or (suite.failures and path.is_file())):
            rows.write(path, suite.rows, (key for failure in suite.failures for key in failure.keys))

    with showing_progress(Console(stderr=True)) as progress:

        def begin(done: int, case: Case) -> None:
            progress("measuring", done, len(suite.cases), str(case))
            if done:
                save()

        try:
            suite.run(begin)
        finally:
            save()


def tell(suite: Suite, console: Console) -> int:
    """Print what has no numbers, and why; returns the exit status."""
    for failure in suite.failures:
        console.print(f"no number: {failure.what}: {failure.why}", style="red", soft_wrap=True)
    for case in suite.left_out:
        console.print(f"left out for time: {case}", style="yellow", soft_wrap=True)
    return 1 if suite.failures else 0


def columns(first: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table with columns of text and columns of numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in first:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def show(measured: Sequence[Measurement]) -> Table:
    """Rows as a table for the terminal."""
    table = columns(("benchmark", "implementation"), ("ms", "20-80 %", "speed-up", "of ceiling", "saved MB"))
    for row in measured:
        table.add_row(
            ", ".join(part for part in (row.benchmark, row.case, row.dtype, row.layout, row.direction) if part != "-"),
            row.implementation,
            f"{row.median_ms:.3g}", f"{row.q20_ms:.3g}-{row.q80_ms:.3g}",
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            "" if row.ceiling_percent is None else f"{row.ceiling_percent:.0f} % {row.bound}",
            "" if row.saved_bytes is None else f"{row.saved_bytes / 1e6:.1f}",
        )  # fmt: skip
    return table


def side_by_side(before: Sequence[Measurement], after: Sequence[Measurement], revision: str) -> Table:
    """A line for each key of either; a speed-up above 1 is faster now."""
    table = columns(("benchmark",), (f"{revision}, ms", "now, ms", "20-80 %", "speed-up"))
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
