"""All runs of the tables, several side by side; what is done stays done, what was begun goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hdgan.data.scenes import CLASSES
from hdgan.devices import choose_device
from hdgan.errors import TrainingError
from hdgan.evaluation.split import with_scenes
from hdgan.files import save_png
from hdgan.models.config import require
from hdgan.reproduce.evidence import EVIDENCE, write_evidence
from hdgan.reproduce.folder import NETWORKS, Folder
from hdgan.reproduce.plan import ROWS, Scale
from hdgan.reproduce.progress import Display
from hdgan.reproduce.results import REAL, Result, load_results, write_csv
from hdgan.reproduce.sheet import runs_sheet
from hdgan.reproduce.workers import STOPPED, Job, Workers
from hdgan.training.interrupt import StopRequest
from hdgan.training.logs import read_metrics

JOB = "hdgan.reproduce.job"
LOOK_SECONDS = 0.5
"""Between looks at the processes."""
GPU_JOBS = 4
"""Runs side by side on a GPU, which one small run does not fill."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `reproduce` ended."""

    done: int
    """Runs that are scored."""
    total: int
    page: Path | None
    """The evidence; None while no run is scored."""

    @property
    def finished(self) -> bool:
        return self.done == self.total


def reproduce(
    scale: Scale,
    out: Path,
    *,
    seeds: int = 3,
    jobs: int | None = None,
    device: str = "auto",
    docs: Path | None = None,
    rows: Sequence[str] = tuple(ROWS),
    console: Console | None = None,
) -> Outcome:
    """Train and score all rows of the tables for every seed, and write the evidence.

    May be repeated after any end: finished runs are kept, others go on from their last checkpoint. Ctrl-C saves.

    Args:
        scale: of all runs.
        out: folder of the runs.
        seeds: runs of each row.
        jobs: runs side by side; None takes the number of cores, on a GPU GPU_JOBS.
        device: auto, cpu, cuda or cuda:N.
        docs: folder for evidence.md; None takes `out`.
        rows: names in ROWS.
        console: where progress goes.

    Raises:
        ConfigError: an option that cannot work, or a folder with runs of another scale.
        TrainingError: jobs failed; all others are finished.
    """
    console = console or Console()
    require("a positive number", {"seeds": seeds, "jobs": jobs}, lambda value: value > 0)
    on_gpu = choose_device(device).type == "cuda"
    session = _Session(scale, Folder(out), jobs or (GPU_JOBS if on_gpu else _cores()), device, console)
    session.folder.claim(scale)
    with_scenes(scale.data, len(CLASSES), console)
    runs = [_Task(row, seed) for seed in range(seeds) for row in rows]
    with StopRequest() as stop:
        # Every score, and a perceptual loss, needs its network.
        failed = session.work("networks", [_Task(name, seed) for name, seed in NETWORKS.items()], stop)
        failed = failed or session.work("runs", runs, stop)
    page = publish(session.folder, scale, docs or out)
    if failed:
        raise TrainingError("; ".join(failed))
    return Outcome(sum(session.is_done(run) for run in runs), len(runs), page)


def publish(folder: Folder, scale: Scale, docs: Path) -> Path | None:
    """Write rows, pictures and the page from what is scored; None if nothing is."""
    results = collect(folder)
    if not results:
        return None
    write_csv(docs / EVIDENCE / f"{scale.name}.csv", results)
    save_png(runs_sheet(folder, scale), docs / EVIDENCE / f"{scale.name}.png")
    return write_evidence(docs)


def collect(folder: Folder) -> list[Result]:
    """All results so far, in the order of the rows; those of the real photos, which all runs share, once."""
    found = [load_results(folder.result(row, seed)) for row in ROWS for seed in folder.seeds(row)]
    results = [result for results in found for result in results]
    real = [result for result in results if result.row == REAL]
    return real[:1] + [result for result in results if result.row != REAL]


@dataclass(frozen=True)
class _Task:
    """A network or the run of a row, with its seed."""

    name: str
    seed: int

    def __str__(self) -> str:
        return self.name if self.name in NETWORKS else f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class _Session:
    """What all processes of a call have in common."""

    scale: Scale
    folder: Folder
    jobs: int
    device: str
    console: Console

    def work(self, what: str, tasks: Sequence[_Task], stop: StopRequest) -> list[str]:
        """Do what is not done yet; returns a line for each that failed."""
        threads = max(1, _cores() // self.jobs)
        todo = {self._job(task, threads): task for task in tasks if not self.is_done(task)}
        failed = []
        with (
            Display(self.console, what, len(tasks), len(tasks) - len(todo)) as display,
            Workers(tuple(todo), self.jobs, threads) as workers,
        ):
            while workers.busy:
                if stop.requested:
                    workers.stop()
                for ended in workers.poll():
                    if ended.status not in (0, STOPPED):
                        failed.append(f"{ended.job.name}: {ended.last_line} (all of it: {ended.job.log})")
                    display.end(ended.job.name, _HOW.get(ended.status, "failed"))
                    write_csv(self.folder.results, collect(self.folder))
                display.update({job.name: self._share(todo[job]) for job in workers.running}, stop.requested)
                time.sleep(LOOK_SECONDS)
        return failed

    def is_done(self, task: _Task) -> bool:
        network = task.name in NETWORKS
        return (self.folder.network(task.name) if network else self.folder.result(task.name, task.seed)).is_file()

    def _job(self, task: _Task, threads: int) -> Job:
        options = {"seed": task.seed, "device": self.device, "threads": threads, "jobs": self.jobs}
        arguments = [str(self.folder.root), task.name]
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        return Job(str(task), JOB, tuple(arguments), self.folder.log(f"{task.name}-{task.seed}"))

    def _share(self, task: _Task) -> float:
        """How much of a job at work is done, from 0 to 1, by the log of its run; a network has none."""
        if task.name in NETWORKS:
            return 0.0
        records = read_metrics(self.folder.run(task.name, task.seed))
        return records[-1]["step"] / self.scale.steps if records else 0.0


_HOW = {0: "done", STOPPED: "saved"}


def _cores() -> int:
    return os.cpu_count() or 1
