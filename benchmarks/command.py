"""`hdgan bench`: measure, compare two revisions, profile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from annotated_types import Interval
from rich.console import Console
from rich.table import Table

from hdgan.benchmarks import rows
from hdgan.benchmarks.compare import compare_with
from hdgan.benchmarks.rows import Row
from hdgan.benchmarks.suite import Job, Options, Suite
from hdgan.config.bounds import Threads
from hdgan.config.serialization import check_value
from hdgan.devices import choose_device
from hdgan.progress import showing_progress
from hdgan.wording import count

DType = Literal["float32", "bfloat16", "float16"]
Layout = Literal["NCHW", "NHWC"]
Pass = Literal["forward", "backward", "both"]
Seconds = Annotated[float, Interval(gt=0, le=3600)]
Minutes = Annotated[float, Interval(ge=0, le=10**6)] | None
Cores = Threads | None


def bench(
    works: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    device: str = "auto",
    dtype: tuple[DType, ...] = ("float32",),
    layout: tuple[Layout, ...] = ("NCHW", "NHWC"),
    contestants: tuple[str, ...] = (),
    passes: tuple[Pass, ...] = ("forward", "backward", "both"),
    only: str = "",
    large: bool = False,
    seconds: float = 0.5,
    minutes: float | None = None,
    threads: int | None = None,
    reference: Path | None = None,
    compare: str | None = None,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--results"])] = None,
    publish: bool = False,
) -> int:
    """Measure speed and memory, each contestant checked against float32 truth first; a red check gets no number.

    Prints a table. After each case its rows go into OUT/<device>.csv, and older ones of what now fails go out;
    from that file `hdgan bench report` makes tables and plots.
    `hdgan bench profile WORK CONTESTANT` shows where the time goes.

    Args:
        works: what to measure: ops (instance_norm_act, instance_mean, instance_index, avg_pyramid, encode_labels),
            networks (residual_block, G1, G2, D, E), step, data_loading, startup; all if empty.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the tensors; the step runs under autocast.
        layout: memory formats; speed-ups are always against eager NCHW.
        contestants: eager, compile, max-autotune, cpu, cuda, triton, scatter, nvidia, hdgan; all that can run if empty.
        passes: of the ops.
        only: leave out cases whose names lack this text; a whole name also runs what is large, or an installation.
        large: also run what takes a GPU.
        seconds: to spend on each row, about; five rounds at least, three where one takes over a second.
        minutes: begin nothing more after so many, and say what is left out.
        threads: of PyTorch on the CPU.
        reference: a checkout of NVIDIA/pix2pixHD, whose networks then take part.
        compare: a git revision to measure as well, in a worktree of its own; prints both and keeps no rows.
        out: folder of the rows, hdgan-bench in the current folder if not given.
        publish: write into benchmarks/results of this checkout instead, whose rows README.md shows.
    """
    for name, kind, value in (
        ("seconds", Seconds, seconds),
        ("minutes", Minutes, minutes),
        ("threads", Cores, threads),
    ):
        check_value(kind, value, name)
    results = rows.folder_for(out, publish)
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if threads is not None:
        torch.set_num_threads(threads)
    options = Options(chosen, works, dtype, layout, contestants, passes, only, large, seconds, minutes, reference)
    # A table in a file needs no narrow columns.
    width = None if sys.stdout.isatty() else 160
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    errors = Console(stderr=True)
    suite = Suite(options)  # refuses what cannot be measured before a worktree is made
    if compare is not None:
        return compare_with(compare, options, suite, lambda: run_suite(suite, errors), console)
    path = rows.path_for(results, rows.device_name(chosen))

    def save() -> None:
        if suite.rows or (suite.failures and path.is_file()):
            rows.write(path, suite.rows, (key for failure in suite.failures for key in failure.keys))

    run_suite(suite, errors, save)
    if suite.rows:
        console.print(show(suite.rows))
        console.print(f"{count(len(suite.rows), 'row')}: {path}", soft_wrap=True)
    return tell(suite, console)


def run_suite(suite: Suite, console: Console, save: Callable[[], None] = lambda: None) -> None:
    """Run a suite, show the case at work, and save after each job and when interrupted."""
    with showing_progress(console) as progress:
        done = -1

        def report(job: Job | None) -> None:
            nonlocal done
            done += 1
            progress("measuring", done, len(suite.jobs), str(job or ""))
            if done and job:
                save()

        try:
            suite.run(report)
        finally:
            save()


def tell(suite: Suite, console: Console) -> int:
    """Say what has no numbers, and why; the exit status."""
    for failure in suite.failures:
        console.print(f"no number: {failure.what}: {failure.why}", style="red", soft_wrap=True)
    for job in suite.left_out:
        console.print(f"left out for time: {job}", style="yellow", soft_wrap=True)
    return 1 if suite.failures else 0


def show(measured: Sequence[Row]) -> Table:
    """Rows as a table for the terminal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("work", "contestant"):
        table.add_column(name, overflow="fold")
    for name in ("ms", "20-80 %", "speed-up", "of ceiling", "saved MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in measured:
        table.add_row(
            ", ".join(part for part in (row.work, row.case, row.dtype, row.layout, row.direction) if part != "-"),
            row.contestant,
            f"{row.median_ms:.3g}", f"{row.q20_ms:.3g}-{row.q80_ms:.3g}",
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            "" if row.ceiling_percent is None else f"{row.ceiling_percent:.0f} % {row.bound}",
            "" if row.saved_bytes is None else f"{row.saved_bytes / 1e6:.1f}",
        )  # fmt: skip
    return table
