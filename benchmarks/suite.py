"""A run of benchmarks: which cases there are, and the rows that their trials become."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hdgan.benchmarks import timing
from hdgan.benchmarks.cases import BENCHMARKS
from hdgan.benchmarks.reference import load_reference
from hdgan.benchmarks.rows import KEY, Key, Measurement, device_name, versions
from hdgan.benchmarks.runner import (
    DTYPES,
    GRAPH,
    IMPLEMENTATIONS,
    PASSES,
    Benchmark,
    CheckFailed,
    Context,
    Trial,
    TrialResult,
    run,
)
from hdgan.errors import ConfigError, HdganError
from hdgan.ops._backend import BACKENDS, why_unusable

BASELINE = ("eager", "NCHW")
"""What speed-ups are against."""


@dataclass(frozen=True)
class Selection:
    """What to measure."""

    device: torch.device
    benchmarks: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    layouts: tuple[str, ...] = ("NCHW", "NHWC")
    implementations: tuple[str, ...] = ()
    passes: tuple[str, ...] = PASSES
    only: str = ""
    large: bool = False
    seconds: float = 0.5
    minutes: float | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class Case:
    """One case of a benchmark in one dtype and layout."""

    benchmark: Benchmark
    name: str
    context: Context

    @property
    def dtype(self) -> str:
        names = {dtype: name for name, dtype in DTYPES.items()}
        return names[self.context.dtype] if self.benchmark.dtypes else "-"

    @property
    def layout(self) -> str:
        return self.context.layout if self.benchmark.layouts else "-"

    def __str__(self) -> str:
        return ", ".join(
            part for part in (f"{self.benchmark.name}: {self.name}", self.dtype, self.layout) if part != "-"
        )

    def key(self, direction: str) -> Key:
        """The key of the row of a pass, where the case has one implementation."""
        (implementation,) = self.context.implementations
        return self.benchmark.name, self.name, direction, implementation, self.layout, self.dtype

    def trials(self) -> Iterator[Trial]:
        return self.benchmark.setup(self.name, self.context)

    @contextmanager
    def trial(self, implementation: str) -> Iterator[Trial]:
        """An implementation's trial of both passes, or of the only pass. Contexts of its setup end with this one."""
        for direction in ("both", "forward"):
            context = replace(self.context, implementations=(implementation,), passes=(direction,))
            trials = replace(self, context=context).trials()
            for trial in trials:
                try:
                    yield trial
                finally:
                    trials.close()  # type: ignore[attr-defined]  # a setup is a generator
                return


@dataclass(frozen=True)
class Failure:
    """A trial without a number, or an implementation without trials, and why."""

    what: str
    why: str
    keys: tuple[Key, ...]
    """Keys of the rows that it would have made."""


def available(device: torch.device, reference: Path | None = None) -> tuple[str, ...]:
    """The implementations that can run here."""
    kernels = ("cpu",) if device.type == "cpu" else ("cuda", "triton")
    left_out = {name for name in BACKENDS[1:] if name not in kernels or why_unusable(name)}
    if "cuda" in left_out:
        left_out.add(GRAPH)
    if device.type == "cpu":
        left_out.add("max-autotune")  # the same code as compile
    if reference is None:
        left_out.add("nvidia")
    return tuple(name for name in IMPLEMENTATIONS if name not in left_out)


def choose(selection: Selection) -> list[Case]:
    """The cases of a run.

    Raises:
        ConfigError: a benchmark or implementation does not exist or cannot run here, or no case is left.
    """
    for name in selection.benchmarks:
        if name not in BENCHMARKS:
            raise ConfigError(f"there is no benchmark {name!r}: give {', '.join(BENCHMARKS)}, or nothing for all")
    here = available(selection.device, selection.reference)
    for name in selection.implementations:
        if name not in IMPLEMENTATIONS:
            raise ConfigError(f"--implementations {name}: give some of {', '.join(here)}")
        if name not in here:
            raise ConfigError(f"--implementations {name}: {_why_not(name, selection.device)}")
    if selection.reference is not None:
        load_reference(selection.reference)
    cases = [case for name in selection.benchmarks or BENCHMARKS for case in _cases(BENCHMARKS[name], selection, here)]
    if not cases:
        raise ConfigError(
            f"--only {selection.only!r} leaves no case of {', '.join(selection.benchmarks or BENCHMARKS)} for "
            f"{selection.device.type}: --large adds the large cases"
        )
    return cases


def _why_not(name: str, device: torch.device) -> str:
    if name == "nvidia":
        return "give a checkout of NVIDIA/pix2pixHD with --reference"
    reason = why_unusable("cuda" if name == GRAPH else name) if name in (*BACKENDS, GRAPH) else None
    return reason or f"it does not run on {device.type}"


def _cases(benchmark: Benchmark, selection: Selection, here: tuple[str, ...]) -> Iterator[Case]:
    places = {"anywhere", "gpu"} if selection.large or selection.device.type == "cuda" else {"anywhere"}
    implementations = selection.implementations or here
    layouts = selection.layouts if benchmark.layouts else ("NCHW",)
    for name, where in benchmark.cases.items():
        # A case that is named in full runs anywhere.
        if selection.only not in name or not (where in places or selection.only == name):
            continue
        for dtype in selection.dtypes if benchmark.dtypes else ("float32",):
            for layout in dict.fromkeys((BASELINE[1], *layouts)):
                chosen = implementations if layout in layouts else ()
                asked = {*chosen, BASELINE[0]} if layout == BASELINE[1] else set(chosen)
                ours = tuple(one for one in benchmark.implementations if one in asked and one in here)
                if ours:
                    context = Context(
                        selection.device, DTYPES[dtype], layout, ours, selection.passes, selection.reference
                    )
                    yield Case(benchmark, name, context)


class Suite:
    """Runs cases one after the other: those that are given, or all of a selection.

    Attributes:
        rows: what was measured.
        failures: what could not be measured.
        left_out: cases for which there was no time.
    """

    def __init__(self, selection: Selection, cases: Sequence[Case] | None = None) -> None:
        self.selection = selection
        self.cases = choose(selection) if cases is None else list(cases)
        self.rows: list[Measurement] = []
        self.failures: list[Failure] = []
        self.left_out: list[Case] = []
        self._baselines: dict[tuple[str, ...], float] = {}

    def run(self, begin: Callable[[int, Case], None] = lambda done, case: None) -> None:
        """Measure everything; `begin` is called with the number of cases before each case, and the case."""
        end = time.monotonic() + 60 * self.selection.minutes if self.selection.minutes else float("inf")
        for done, case in enumerate(self.cases):
            begin(done, case)
            if time.monotonic() > end:
                self.left_out.append(case)
            else:
                with timing.exact_float32():
                    self._run(case)

    def _run(self, case: Case) -> None:
        """Run one implementation at a time, so that the others go on if one fails."""
        for implementation in case.context.implementations:
            one = replace(case, context=replace(case.context, implementations=(implementation,)))
            trials = one.trials()
            while True:
                trial = None
                try:
                    trial = next(trials, None)
                    if trial is None:
                        break
                    result = run(trial, self.selection.device, self.selection.seconds, case.benchmark.clock)
                    self.rows.append(self._row(one, trial, result))
                except HdganError:
                    raise  # the user can act on it
                except Exception as error:  # others' implementations may raise anything
                    what = f"{case}: {implementation}" + (f" {trial.direction}" if trial else "")
                    reason = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
                    why = reason + (str(error).strip().splitlines() or [""])[0]
                    keys = tuple(one.key(direction) for direction in ((trial.direction,) if trial else PASSES))
                    self.failures.append(Failure(what, why, keys))
                    if trial is None:
                        break

    def _row(self, case: Case, trial: Trial, result: TrialResult) -> Measurement:
        device, median = self.selection.device, result.timing.median
        same = (case.benchmark.name, case.name, trial.direction, case.dtype)
        if (trial.implementation, case.context.layout) == BASELINE:
            self._baselines[same] = median
        baseline = self._baselines.get(same)
        copy, matmul = timing.copy_ceiling(device), timing.matmul_ceiling(device, case.context.dtype)
        floors = {"copy": trial.cost.bytes / copy, "matmul": trial.cost.flops / matmul}
        bound = max(floors, key=lambda name: floors[name]) if any(floors.values()) else ""
        own_copy = timing.copy_ceiling(device, trial.cost.bytes) if bound == "copy" else None
        return Measurement(
            **dict(zip(KEY, case.key(trial.direction), strict=True)),
            median_ms=median * 1e3,
            q20_ms=result.timing.q20 * 1e3,
            q80_ms=result.timing.q80 * 1e3,
            rounds=result.timing.rounds,
            speedup=baseline / median if baseline else None,
            ceiling_percent=100 * floors[bound] / median / trial.per_call if bound else None,
            bound=bound,
            error=result.error,
            tolerance=trial.tolerance,
            bytes=trial.cost.bytes,
            flops=trial.cost.flops,
            saved_bytes=result.saved_bytes,
            peak_bytes=result.peak_bytes,
            copy_gb_s=copy / 1e9,
            matmul_tflop_s=matmul / 1e12,
            device=device_name(device),
            threads=torch.get_num_threads(),
            **versions(),
            clock=case.benchmark.clock if device.type == "cuda" else "",
            launch_ms=None if result.timing.launch is None else result.timing.launch * 1e3,
            own_copy_gb_s=None if own_copy is None else own_copy / 1e9,
        )
