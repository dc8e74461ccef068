"""`hdgan bench profile`: where the time of an implementation goes, kernel by kernel."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from hdgan.benchmarks.suite import Selection, choose
from hdgan.benchmarks.timing import exact_float32
from hdgan.devices import choose_device
from hdgan.errors import ConfigError
from hdgan.files import atomic_file

MOST_LINES = 40


def profile(
    benchmark: Annotated[str, tyro.conf.Positional],
    implementation: Annotated[str, tyro.conf.Positional],
    /,
    out: Path | None = None,
    only: str = "",
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NHWC",
    rounds: int = 3,
) -> int:
    """Print what one case spends its time on, by kernel; with --out, write a trace for chrome://tracing or Perfetto.

    Args:
        benchmark: one of those that `hdgan bench` has.
        implementation: one of those that `hdgan bench` has.
        out: the trace, compressed: FILE.json.gz.
        only: text in the name of the case; the last case with it is profiled.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the tensors.
        layout: memory format.
        rounds: calls to record, after two for warming up; 0 if this runs under another profiler, such as ncu.
    """
    if out is not None and out.suffixes[-2:] != [".json", ".gz"]:
        raise ConfigError(f"--out {out}: give a file that ends in .json.gz")
    if rounds < 0 or (rounds == 0 and out is not None):
        raise ConfigError(f"--rounds is {rounds}: give 1 or more{' for a trace' if out is not None else ''}")
    chosen = choose_device(device)
    selection = Selection(chosen, (benchmark,), (dtype,), (layout,), (implementation,), only=only, large=True)
    cases = [case for case in choose(selection) if implementation in case.context.implementations]
    if not cases:
        raise ConfigError(f"{implementation} is not an implementation of {benchmark}: choose another")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (chosen.type == "cuda")
    with exact_float32(), cases[-1].trial(implementation) as trial:
        for _ in range(2):
            trial.call()
        if rounds == 0:
            return 0
        with record(activities=activities) as recorded:
            for _ in range(rounds):
                trial.call()
    console = Console(markup=False, highlight=False, emoji=False)
    by = f"self_{chosen.type}_time_total"
    console.print(f"{cases[-1]}, {implementation}, {trial.direction}, {rounds} rounds", soft_wrap=True)
    console.print(recorded.key_averages().table(sort_by=by, row_limit=MOST_LINES), soft_wrap=True)
    if out is not None:
        with tempfile.TemporaryDirectory() as folder, atomic_file(out) as target:
            trace = Path(folder) / "trace.json"
            recorded.export_chrome_trace(str(trace))
            with trace.open("rb") as source, gzip.open(target, "wb") as compressed:
                shutil.copyfileobj(source, compressed)
        console.print(f"trace: {out}", soft_wrap=True)
    return 0
