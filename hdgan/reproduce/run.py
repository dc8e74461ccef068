"""All runs of the tables, several side by side; what is done stays done, what was begun goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hdgan.config.bounds import Threads, Variants
from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.devices import choose_device
from hdgan.errors import ConfigError, DataError, TrainingError
from hdgan.files import save_png
from hdgan.reproduce.evidence import EVIDENCE, write_evidence
from hdgan.reproduce.folder import NETWORKS, SCORER, Folder
from hdgan.reproduce.plan import ROWS, Scale
from hdgan.reproduce.progress import Display
from hdgan.reproduce.record import cores, load_record
from hdgan.reproduce.results import REAL, Result, Wanted, load_results, read_results, save_wanted, write_csv
from hdgan.reproduce.runs import require_same
from hdgan.reproduce.sheet import runs_sheet
from hdgan.reproduce.workers import STOPPED, Job, Workers
from hdgan.scenes import SPEC, with_scenes
from hdgan.training.interrupt import StopRequest
from hdgan.training.logs import read_metrics
from hdgan.wording import count

JOB = "hdgan.reproduce.job"
LOOK_SECONDS = 0.5
"""Between looks at the processes."""
GPU_JOBS = 4
"""Runs side by side on a GPU, which one small run does not fill."""
SAME_ORACLE = 1e-3
"""Difference in the scores of real photos that may come of another device or number of threads."""


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

    May be repeated after any end: finished runs are kept, others go on from their last checkpoint. Ctrl-C saves. A
    finished run whose scores are missing, or of another scorer or version of hdgan, is scored anew.

    Args:
        scale: of all runs.
        out: folder of the runs.
        seeds: runs of each row.
        jobs: runs side by side; None takes the number of cores, on a GPU GPU_JOBS.
        device: auto, cpu, cuda or cuda:N.
        docs: folder for evidence.md once all runs are done; None takes `out`, as do the rows until then.
        rows: names in ROWS.
        console: where progress goes.

    Raises:
        ConfigError: an option that cannot work, a folder with runs of another scale or other options, or more runs of
            this scale in `docs` than asked for.
        DataError: runs were judged differently.
        TrainingError: jobs failed; all others are finished.
    """
    console = console or Console()
    check_value(Variants, seeds, "seeds")
    check_value(Threads | None, jobs, "jobs")
    on_gpu = choose_device(device).type == "cuda"
    session = _Session(scale, Folder(out), jobs or (GPU_JOBS if on_gpu else cores()), device, console)
    folder, runs = session.folder, [_Task(row, seed) for seed in range(seeds) for row in rows]
    if docs is not None and docs.resolve() != out.resolve():
        _require_no_more(docs, scale, len(runs))
    folder.claim(scale)
    with_scenes(scale.data, SPEC.n_labels, console)
    with StopRequest() as stop:
        # Every score, and a perceptual loss, needs its network.
        failed = session.work("networks", [_Task(name, seed) for name, seed in NETWORKS.items()], stop)
        if not failed and not stop.requested:
            for run in runs:
                require_same(folder, run.name, run.seed)
            failed = session.work("runs", runs, stop)
    done = sum(session.is_done(run) for run in runs)
    page = publish(folder, tuple(rows), seeds, docs if docs and done == len(runs) else out)
    if failed:
        raise TrainingError("; ".join(failed))
    return Outcome(done, len(runs), page)


def _require_no_more(docs: Path, scale: Scale, runs: int) -> None:
    """See that evidence is not replaced by less of it; rows that this version cannot read are to be replaced."""
    file = docs / EVIDENCE / f"{scale.name}.csv"
    try:
        found = sum(result.row != REAL for result in read_results(file)) if file.is_file() else 0
    except DataError:
        return
    if found > runs:
        raise ConfigError(
            f"{file} holds {count(found, 'run')}, which {runs} would replace: name another {option('docs')}, or more "
            f"{option('seeds')}"
        )


def publish(folder: Folder, rows: tuple[str, ...], seeds: int, docs: Path) -> Path | None:
    """Write rows, pictures and the page from what is scored; None if nothing is.

    Raises:
        DataError: runs were judged differently.
    """
    wanted = Wanted(rows, seeds, {name: load_record(folder.record(name, seed)) for name, seed in NETWORKS.items()})
    found = scored(folder, [(row, seed) for row in ROWS for seed in range(seeds) if row in rows])
    if not found:
        return None
    _require_one_oracle(folder.root, found)
    scale = folder.scale()
    results = [found[0].real, *(one.run for one in found)]
    write_csv(folder.results, results)
    file = docs / EVIDENCE / f"{scale.name}.csv"
    write_csv(file, results)
    save_wanted(file, wanted)
    shown = [one.run.row for one in found if one.run.seed == 0]
    save_png(runs_sheet(folder, scale, shown), file.with_suffix(".png"))
    return write_evidence(docs)


@dataclass(frozen=True)
class Scored:
    """The scores of a run, and of real photos by the same judge."""

    real: Result
    run: Result


def scored(folder: Folder, runs: Sequence[tuple[str, int]]) -> list[Scored]:
    """Those of these runs, by row and seed, that are scored."""
    if not folder.network(SCORER).is_file():
        return []
    scorer = folder.digest(SCORER)
    return [Scored(*results) for row, seed in runs if (results := load_results(folder.result(row, seed), scorer))]


def _require_one_oracle(root: Path, found: Sequence[Scored]) -> None:
    """Raise DataError if one scorer did not see the same in the same photos: the evaluation itself is another."""
    lowest, highest = (pick(found, key=_oracle) for pick in (min, max))
    if _oracle(highest) - _oracle(lowest) > SAME_ORACLE:
        one, other = (f"{_oracle(end):.4f} beside {end.run.row}-{end.run.seed}" for end in (lowest, highest))
        raise DataError(
            f"the evaluation changed between runs: real photos have a mean IoU of {one} and of {other}; delete "
            f"{root / 'runs'}/*/result.json to have all runs scored again"
        )


def _oracle(one: Scored) -> float:
    return one.real.metrics.get("miou") or 0.0


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
        threads = max(1, cores() // self.jobs)
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
                        failed.append(f"{ended.job.name}: {ended.reason} (all of it: {ended.job.log})")
                    stopped = "saved" if todo[ended.job].name in ROWS else "stopped"
                    display.end(ended.job.name, {0: "done", STOPPED: stopped}.get(ended.status, "failed"))
                display.update({job.name: self._share(todo[job]) for job in workers.running}, stop.requested)
                time.sleep(LOOK_SECONDS)
        return failed

    def is_done(self, task: _Task) -> bool:
        if task.name in NETWORKS:
            return self.folder.network(task.name).is_file()
        return bool(scored(self.folder, [(task.name, task.seed)]))

    def _job(self, task: _Task, threads: int) -> Job:
        options = {"seed": task.seed, "device": self.device, "threads": threads, "jobs": self.jobs}
        arguments = [str(self.folder.root), task.name]
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        return Job(str(task), JOB, tuple(arguments), self.folder.log(f"{task.name}-{task.seed}"))

    def _share(self, task: _Task) -> float | None:
        """How much of a job at work is done, from 0 to 1, by the log of its run; None of a network, which has none."""
        if task.name in NETWORKS:
            return None
        records = read_metrics(self.folder.run(task.name, task.seed))
        return records[-1]["step"] / self.scale.steps if records else 0.0
