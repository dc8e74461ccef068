"""`hdgan bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from annotated_types import Interval
from rich.console import Console

from hdgan.benchmarks import rows
from hdgan.benchmarks.compare import compare_with
from hdgan.benchmarks.display import run_suite, show, tell
from hdgan.benchmarks.suite import Selection, Suite
from hdgan.config.bounds import Threads
from hdgan.config.serialization import check_value
from hdgan.devices import choose_device
from hdgan.wording import count

DType = Literal["float32", "bfloat16", "float16"]
Layout = Literal["NCHW", "NHWC"]
Pass = Literal["forward", "backward", "both"]
Seconds = Annotated[float, Interval(gt=0, le=3600)]
Minutes = Annotated[float, Interval(ge=0, le=10**6)]


def bench(
    benchmarks: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    device: str = "auto",
    dtype: tuple[DType, ...] = ("float32",),
    layout: tuple[Layout, ...] = ("NCHW", "NHWC"),
    implementations: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--contestants"])] = (),
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
    """Measure speed and memory. Implementations are first compared with float32 truth; one that deviates too much is
    not measured.

    Prints a table. After each case its rows are written to OUT/<device>.csv, and older rows of cases that now fail are
    removed; `hdgan bench report` makes tables and plots of that file. `hdgan bench profile BENCHMARK IMPLEMENTATION`
    shows where the time goes.

    Args:
        benchmarks: what to measure: ops by their names in hdgan.ops, instance_norm_act_3d, networks (residual_block,
            G1, G2, D, E), accelerate (others' networks), step, data_loading, generate, preview, startup; all if empty.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the tensors; the step runs under autocast.
        layout: memory formats; speed-ups are always over eager NCHW.
        implementations: eager, compile, max-autotune, cpu, cuda, triton, cuda-graph, scatter, nvidia, compile-hdgan
            (others' networks, accelerated and then compiled), hdgan; if empty, all that can run on this machine.
        passes: of the ops.
        only: measure only the cases whose names contain this text; a whole name also runs a large case, or the
            installation.
        large: also run the cases that are meant for a GPU.
        seconds: approximate time for each row; each gets at least five rounds, or three if a round takes over a second.
        minutes: start no more cases after this time, and list those that are left out.
        threads: of PyTorch on the CPU.
        reference: a checkout of NVIDIA/pix2pixHD, whose networks are then measured too.
        compare: a git revision to measure as well, in its own worktree; prints both and writes no rows.
        out: folder of the rows; if left out, hdgan-bench in the current folder.
        publish: write to benchmarks/results of this checkout instead, whose rows README.md shows.
    """
    check_value(Seconds, seconds, "seconds")
    check_value(Minutes | None, minutes, "minutes")
    check_value(Threads | None, threads, "threads")
    results = rows.folder_for(out, publish)
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if threads is not None:
        torch.set_num_threads(threads)
    selection = Selection(
        chosen, benchmarks, dtype, layout, implementations, passes, only, large, seconds, minutes, reference
    )
    # A table in a file needs no narrow columns.
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    suite = Suite(selection)  # refuses what cannot be measured before a worktree is made
    if compare is not None:
        return compare_with(compare, suite, console)
    path = rows.path_for(results, rows.device_name(chosen))
    run_suite(suite, path)
    if suite.rows:
        console.print(show(suite.rows))
        console.print(f"{count(len(suite.rows), 'row')}: {path}", soft_wrap=True)
    return tell(suite, console)
