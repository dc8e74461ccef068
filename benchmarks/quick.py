"""The speed of everything that matters, by one process in two or three minutes: `run_gpu.sh quick-speed`.

The ops run at 2048x1024 in bfloat16 and both layouts, then a frame, a training step, both replayed from a CUDA graph,
and a profile of the step. torch.compile comes last, since compiling takes most of the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import torch
import tyro
from rich.console import Console

from hdgan.benchmarks import rows
from hdgan.benchmarks.cases import BENCHMARKS
from hdgan.benchmarks.display import run_suite, show, tell
from hdgan.benchmarks.profiling import profile
from hdgan.benchmarks.runner import DTYPES, GRAPH, Context
from hdgan.benchmarks.suite import Case, Selection, Suite, available
from hdgan.devices import choose_device
from hdgan.errors import HdganError

BOTH_LAYOUTS = ("NCHW", "NHWC")
DTYPE: Final = "bfloat16"
ROW_SECONDS = 0.05
PROFILED = {"cuda": ("step", "cuda", "2048"), "cpu": ("encode_labels", "cpu", "1024x512")}
"""Benchmark, implementation, and text in the name of the case."""


class Planned(NamedTuple):
    """What is measured of one case."""

    benchmark: str
    case: str
    implementations: tuple[str, ...]
    layouts: tuple[str, ...] = BOTH_LAYOUTS
    passes: tuple[str, ...] = ("forward", "backward")


ON_GPU = ("eager", "cuda", "triton")
OPS = (
    Planned("instance_norm_act", "G2 stem", ON_GPU),
    Planned("instance_norm_act", "G2 last up", ON_GPU),
    Planned("instance_norm_act", "G2 block, first norm", ON_GPU, passes=("forward", "backward", "both")),
    Planned("instance_norm_act", "G2 block, second norm", ON_GPU),
    Planned("avg_pyramid", "2048x1024", ON_GPU),
    Planned("encode_labels", "2048x1024", ON_GPU, passes=("forward",)),
    Planned("instance_mean", "2048x1024, 60 instances", ON_GPU),
    Planned("l1_distance", "2048x1024", ON_GPU),
    Planned("label_conv2d", "G2, 2048x1024", ON_GPU),
)
NETWORKS = (
    Planned("G2", "2048x1024, ngf 32", (*ON_GPU, GRAPH), ("NHWC",), ("forward",)),
    Planned("step", "G2 2048x1024, 3 D, VGG", (*ON_GPU, GRAPH), ("NHWC",), ("both",)),
)
COMPILED = (
    Planned("instance_norm_act", "G2 last up", ("compile",), ("NHWC",)),
    Planned("avg_pyramid", "2048x1024", ("compile",), ("NHWC",)),
    Planned("G2", "2048x1024, ngf 32", ("compile",), ("NHWC",), ("forward",)),
)
REHEARSAL = (
    Planned("instance_norm_act", "E last up", ("eager", "cpu")),
    Planned("encode_labels", "1024x512", ("eager", "cpu"), passes=("forward",)),
)
"""What a CPU measures, to try the script without a GPU."""


def plan(device: str) -> tuple[Planned, ...]:
    """What is measured on a kind of device."""
    return REHEARSAL if device == "cpu" else (*OPS, *NETWORKS, *COMPILED)


def make_cases(parts: Iterable[Planned], device: torch.device) -> list[Case]:
    """The cases of parts, each with those of its implementations that can run here.

    Speed-ups are against eager PyTorch in NCHW, which is therefore measured where only NHWC is asked for as well.
    """
    here = available(device)
    cases = []
    for part in parts:
        baseline = "NCHW" not in part.layouts and "eager" in part.implementations
        for layout in (*["NCHW"] * baseline, *part.layouts):
            asked = part.implementations if layout in part.layouts else ("eager",)
            ours = tuple(name for name in asked if name in here)
            context = Context(device, DTYPES[DTYPE], layout, ours, part.passes)
            cases.append(Case(BENCHMARKS[part.benchmark], part.case, context))
    return cases


def quick(out: Annotated[Path, tyro.conf.Positional], /, device: str = "cuda", seconds: float = 150.0) -> int:
    """Measure the plan.

    Args:
        out: folder of the rows, rows/<device>.csv, and of the trace of a step, step.json.gz.
        device: cuda, or cpu for a rehearsal at small sizes.
        seconds: start no more cases after this time.
    """
    end = time.monotonic() + seconds
    chosen = choose_device(device)
    console = Console(markup=False, highlight=False, emoji=False, width=160)
    suite = Suite(Selection(chosen, dtypes=(DTYPE,), seconds=ROW_SECONDS), [])
    path = rows.path_for(out / "rows", rows.device_name(chosen))

    def measure(compiled: bool) -> None:
        parts = (part for part in plan(chosen.type) if ("compile" in part.implementations) == compiled)
        suite.cases = make_cases(parts, chosen)
        suite.selection = replace(suite.selection, minutes=max(end - time.monotonic(), 1) / 60)
        run_suite(suite, path)

    try:
        measure(compiled=False)
        benchmark, backend, only = PROFILED[chosen.type]
        profile(benchmark, backend, out=out / "step.json.gz", only=only, device=device, dtype=DTYPE, rounds=1)
        measure(compiled=True)
    finally:
        console.print(show(suite.rows))
    return tell(suite, console)


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(quick))
    except HdganError as error:
        sys.exit(f"hdgan: error: {error}")
