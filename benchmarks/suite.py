"""A run over works: which trials there are, and the rows that they become."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hdgan.benchmarks import timing
from hdgan.benchmarks.reference import load_reference
from hdgan.benchmarks.rows import Key, Row, device_name, versions
from hdgan.benchmarks.runner import CONTESTANTS, DTYPES, PASSES, CheckFailed, Context, Result, Trial, Work, run
from hdgan.benchmarks.works import WORKS
from hdgan.errors import ConfigError, HdganError
from hdgan.ops._backend import BACKENDS, why_unusable

BASELINE = ("eager", "NCHW")
"""What speed-ups are against."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: torch.device
    works: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    layouts: tuple[str, ...] = ("NCHW", "NHWC")
    contestants: tuple[str, ...] = ()
    passes: tuple[str, ...] = PASSES
    only: str = ""
    large: bool = False
    seconds: float = 0.5
    minutes: float | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class Job:
    """One case in one dtype and layout."""

    work: Work
    case: str
    context: Context

    @property
    def dtype(self) -> str:
        return next(name for name, dtype in DTYPES.items() if dtype == self.context.dtype) if self.work.dtypes else "-"

    @property
    def layout(self) -> str:
        return self.context.layout if self.work.layouts else "-"

    def __str__(self) -> str:
        return ", ".join(part for part in (f"{self.work.name}: {self.case}", self.dtype, self.layout) if part != "-")

    def trials(self) -> Iterator[Trial]:
        return self.work.setup(self.case, self.context)

    @contextmanager
    def trial(self, contestant: str) -> Iterator[Trial]:
        """A contestant's trial of both passes, or of the only one; what its setup has entered ends with the context."""
        for direction in ("both", "forward"):
            context = replace(self.context, contestants=(contestant,), passes=(direction,))
            trials = replace(self, context=context).trials()
            for trial in trials:
                try:
                    yield trial
                finally:
                    trials.close()  # type: ignore[attr-defined]  # a setup is a generator
                return


@dataclass(frozen=True)
class Failure:
    """A trial without a number, or a contestant without trials, and why."""

    what: str
    why: str
    keys: tuple[Key, ...]
    """Of the rows that it would have made."""


def available(device: torch.device, reference: Path | None = None) -> tuple[str, ...]:
    """The contestants that can run here."""
    kernels = ("cpu",) if device.type == "cpu" else ("cuda", "triton")
    left_out = {name for name in BACKENDS[1:] if name not in kernels or why_unusable(name)}
    if device.type == "cpu":
        left_out.add("max-autotune")  # the same code as compile
    if reference is None:
        left_out.add("nvidia")
    return tuple(name for name in CONTESTANTS if name not in left_out)


def choose(options: Options) -> list[Job]:
    """The jobs of a run.

    Raises:
        ConfigError: a work or contestant that there is not, that cannot run here, or nothing is left.
    """
    for name in options.works:
        if name not in WORKS:
            raise ConfigError(f"there is no work {name!r}: give {', '.join(WORKS)}, or nothing for all")
    here = available(options.device, options.reference)
    for name in options.contestants:
        if name not in CONTESTANTS:
            raise ConfigError(f"--contestants {name}: give some of {', '.join(here)}")
        if name not in here:
            raise ConfigError(f"--contestants {name}: {_why_not(name, options.device)}")
    if options.reference is not None:
        load_reference(options.reference)
    jobs = [job for name in options.works or WORKS for job in _jobs(WORKS[name], options, here)]
    if not jobs:
        raise ConfigError(
            f"--only {options.only!r} leaves no case of {', '.join(options.works or WORKS)} for {options.device.type}: "
            "--large adds those that are large"
        )
    return jobs


def _why_not(name: str, device: torch.device) -> str:
    if name == "nvidia":
        return "name a checkout of NVIDIA/pix2pixHD by --reference"
    reason = why_unusable(name) if name in BACKENDS else None
    return reason or f"it is not for {device.type}"


def _jobs(work: Work, options: Options, here: tuple[str, ...]) -> Iterator[Job]:
    wanted = {"anywhere", "gpu"} if options.large or options.device.type == "cuda" else {"anywhere"}
    names = options.contestants or here
    layouts = options.layouts if work.layouts else ("NCHW",)
    for case, where in work.cases.items():
        # What is asked for by its whole name runs anywhere.
        if options.only not in case or not (where in wanted or options.only == case):
            continue
        for dtype in options.dtypes if work.dtypes else ("float32",):
            for layout in dict.fromkeys((BASELINE[1], *layouts)):
                chosen = names if layout in layouts else ()
                asked = {*chosen, BASELINE[0]} if layout == BASELINE[1] else set(chosen)
                ours = tuple(name for name in work.contestants if name in asked and name in here)
                if ours:
                    context = Context(options.device, DTYPES[dtype], layout, ours, options.passes, options.reference)
                    yield Job(work, case, context)


class Suite:
    """Runs jobs one after the other.

    Attributes:
        rows: what has been measured.
        failures: what has not.
        left_out: jobs for which there was no time.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.jobs = choose(options)
        self.rows: list[Row] = []
        self.failures: list[Failure] = []
        self.left_out: list[Job] = []
        self._baselines: dict[tuple[str, ...], float] = {}

    def run(self, progress: Callable[[Job | None], None] = lambda _: None) -> None:
        """Measure everything; `progress` is told each job before it begins, and None at the end."""
        end = time.monotonic() + 60 * self.options.minutes if self.options.minutes else float("inf")
        for job in self.jobs:
            progress(job)
            if time.monotonic() > end:
                self.left_out.append(job)
            else:
                with timing.exact_float32():
                    self._run(job)
        progress(None)

    def _run(self, job: Job) -> None:
        """One contestant at a time, so that one that fails takes none with it."""
        for contestant in job.context.contestants:
            one = replace(job, context=replace(job.context, contestants=(contestant,)))
            trials = one.trials()
            while True:
                trial = None
                try:
                    trial = next(trials, None)
                    if trial is None:
                        break
                    result = run(trial, self.options.device, self.options.seconds)
                    self.rows.append(self._row(one, trial, result))
                except HdganError:
                    raise  # the user's to mend
                except Exception as error:  # a contestant of anyone's may raise anything; the others go on
                    name = f"{job}: {contestant}" + (f" {trial.direction}" if trial else "")
                    reason = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
                    why = reason + (str(error).strip().splitlines() or [""])[0]
                    directions = (trial.direction,) if trial else PASSES
                    keys = tuple((job.work.name, job.case, d, contestant, job.layout, job.dtype) for d in directions)
                    self.failures.append(Failure(name, why, keys))
                    if trial is None:
                        break

    def _row(self, job: Job, trial: Trial, result: Result) -> Row:
        device, median = self.options.device, result.timing.median
        same = (job.work.name, job.case, trial.direction, job.dtype)
        if (trial.contestant, job.context.layout) == BASELINE:
            self._baselines[same] = median
        baseline = self._baselines.get(same)
        copy, matmul = timing.copy_ceiling(device), timing.matmul_ceiling(device, job.context.dtype)
        floors = {"copy": trial.cost.bytes / copy, "matmul": trial.cost.flops / matmul}
        bound = max(floors, key=lambda name: floors[name])
        return Row(
            work=job.work.name,
            case=job.case,
            direction=trial.direction,
            contestant=trial.contestant,
            layout=job.layout,
            dtype=job.dtype,
            median_ms=median * 1e3,
            q20_ms=result.timing.q20 * 1e3,
            q80_ms=result.timing.q80 * 1e3,
            rounds=result.timing.rounds,
            speedup=baseline / median if baseline else None,
            ceiling_percent=100 * floors[bound] / median / trial.per_call if floors[bound] else None,
            bound=bound if floors[bound] else "",
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
        )
