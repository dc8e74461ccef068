"""All runs of the tables, as ordinary `hdgan train` and `hdgan evaluate` processes, several side by side.

Finished runs are kept, and runs that were begun go on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from hdgan.config.bounds import Threads, Variants
from hdgan.config.serialization import check_value
from hdgan.data.config import DataConfig
from hdgan.devices import available_cores, choose_device, emulates_bfloat16
from hdgan.errors import ConfigError, HdganError, TrainingError
from hdgan.files import require_no_file, same_path
from hdgan.files.json import write_json
from hdgan.progress import Progress, print_lines, showing_progress
from hdgan.reproduce.evidence import EVIDENCE
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.kept import KeptRows, find_kept
from hdgan.reproduce.perceptual import choose_network
from hdgan.reproduce.plan import NETWORKS, ROWS, SCORER, require_rows, typed
from hdgan.reproduce.processes import Stopped, call
from hdgan.reproduce.publish import collect, publish
from hdgan.reproduce.record import Machine, sitting
from hdgan.reproduce.scales import Scale
from hdgan.scenes import SPEC, scenes_folder, with_scenes
from hdgan.training.interrupt import StopRequest
from hdgan.training.run_folder import locked

LOOK_SECONDS = 0.5
"""Seconds between checks of the jobs."""
GPU_JOBS = 8
"""Runs at the same time on a GPU, if there are two cores for each. A small run does not keep a GPU busy, least of
all while it starts."""


@dataclass(frozen=True)
class Reproduction:
    """How a call of `reproduce` ended."""

    done: int
    """Runs that are scored."""
    total: int
    page: Path | None
    """The evidence; None while no run is scored, and of a dry run."""
    commands: tuple[str, ...] = ()
    """What a dry run would do."""

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
    network: str | None = None,
    network_weights: Path | None = None,
    rows: Sequence[str] = tuple(ROWS),
    again: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> Reproduction:
    """Train and score all rows of the tables for every seed, and write the evidence.

    The call may be repeated however it ended: finished runs are kept, and others continue from their last checkpoint.
    Ctrl-C saves. A finished run is scored again if its scores are missing, or are by another scorer or version of
    hdgan. A run that `docs` has the same row of already, perhaps from another machine, is not trained (`kept`).

    Args:
        scale: of all runs.
        out: folder of the runs.
        seeds: runs of each row.
        jobs: runs at the same time; None uses the number of cores, or on a GPU half of it, up to GPU_JOBS.
        device: auto, cpu, cuda or cuda:N.
        docs: folder for evidence.md once all runs are done; None uses `out`, to which the rows go until then.
        network: whose features the perceptual losses compare: vgg19, timm:NAME, or the file of a program; None trains a
            twin of the scorer.
        network_weights: file of the weights of vgg19 or timm's network; None takes the cache, or downloads them.
        rows: names in ROWS.
        again: train also runs that `docs` has rows of.
        dry_run: only load the network of the perceptual loss, and return the commands of the work that is left. A later
            call collects the scores of what they trained.
        console: where progress is printed.

    Raises:
        ConfigError: an option that cannot work; a path that is no folder; a folder that another process uses or that
            contains runs of another scale, with another network or with other options; or rows in `docs` that would be
            lost.
        CheckpointError: the network cannot be read.
        DataError: runs were scored differently.
        TrainingError: jobs failed; all others are finished.
    """
    console = console or Console()
    if not hasattr(os, "wait4"):
        raise ConfigError("hdgan reproduce measures its processes with os.wait4, which Windows does not have: use WSL")
    require_no_file(out)
    if docs is not None:
        require_no_file(docs, "docs")
    require_rows(rows)
    check_value(Variants, seeds, "seeds")
    check_value(Threads | None, jobs, "jobs")
    machine = _machine(device, jobs)
    folder = Folder(out, scale, choose_network(network, network_weights, scale))
    trained = NETWORKS if folder.loss_network.is_twin else (SCORER,)
    networks = [Job(folder, name, NETWORKS[name]) for name in trained]
    runs = [Job(folder, row, seed) for seed in range(seeds) for row in dict.fromkeys(rows)]
    asked = {(run.name, run.seed) for run in runs}
    file = (docs or out) / EVIDENCE / f"{scale.name}.csv"
    kept = KeptRows(file) if docs is None or same_path(docs, out) else find_kept(folder, file)
    kept.require_none_lost(asked)
    print_lines(console, *kept.notes)
    kept = kept.without(asked) if again else kept
    if any((run.name, run.seed) not in kept.results and not run.is_trained() for run in runs):
        _note_emulation(scale, device, console)
    if dry_run:
        folder.require_claimable()
        commands = _typed_commands(folder, networks, _to_train(runs, kept, console), kept, machine, device)
        return Reproduction(_count_done(runs, kept), len(runs), None, commands)
    with locked(out):
        folder.claim()
        kept.adopt_networks(folder, trained)
        with_scenes(DataConfig(scenes=scale.scenes), SPEC.n_labels, console)
        with StopRequest() as stop:
            scheduler = _Scheduler(machine, device, stop, console)
            failed = scheduler.work("networks", networks)
            if not failed and not stop.requested:
                failed = scheduler.work("runs", _to_train(runs, kept, console))
        done = _count_done(runs, kept)
        page = publish(folder, networks, runs, docs if docs and done == len(runs) else out, kept)
    if failed:
        raise TrainingError("; ".join(failed))
    return Reproduction(done, len(runs), page)


def _note_emulation(scale: Scale, device: str, console: Console) -> None:
    if scale.precision == "bfloat16" and emulates_bfloat16(choose_device(device)):
        print_lines(
            console,
            f"size {scale.name} trains in bfloat16, for which this CPU has no instructions: it takes several times as "
            "long as on one with avx512_bf16 or AMX",
        )


def _typed_commands(
    folder: Folder, networks: Sequence[Job], runs: Sequence[Job], kept: KeptRows, machine: Machine, device: str
) -> tuple[str, ...]:
    """The work that is left, as it can be typed, with the scenes and the copies of networks that it needs."""
    beside = kept.networks_for(folder, [network.name for network in networks])
    left = [job for job in (*networks, *runs) if job.name not in beside and not job.is_done()]
    if not left:
        return ()
    lines = []
    if not (root := scenes_folder(folder.scale.scenes)).is_dir():
        lines.append(["hdgan", "data", "scenes", str(root), *typed(asdict(folder.scale.scenes))])
    for source, target in beside.values():
        lines += [["mkdir", "-p", str(target.parent)], ["cp", str(source), str(target)]]
    lines += [["hdgan", *command] for job in left for command in job.commands(machine, device)]
    return tuple(map(shlex.join, lines))


def _count_done(runs: Sequence[Job], kept: KeptRows) -> int:
    return sum(run.is_done() or (run.name, run.seed) in kept.results for run in runs)


def _to_train(runs: Sequence[Job], kept: KeptRows, console: Console) -> list[Job]:
    """The runs of which no row is kept, or which are finished here all the same.

    Raises:
        ConfigError, CheckpointError: as `Job.require_same`.
    """
    own = [run for run in runs if (run.name, run.seed) not in kept.results or run.is_done()]
    if taken := len(runs) - len(own):
        print_lines(console, f"{taken} of {len(runs)} runs are not trained again, since {kept.file} has their rows")
    for run in own:
        run.require_same()
    return own


def _machine(device: str, jobs: int | None) -> Machine:
    chosen, cores = choose_device(device), available_cores()
    on_gpu = chosen.type == "cuda"
    jobs = jobs or (max(1, min(GPU_JOBS, cores // 2)) if on_gpu else cores)
    return Machine(torch.cuda.get_device_name(chosen) if on_gpu else "CPU", cores, max(1, cores // jobs), jobs)


@dataclass(frozen=True)
class _Scheduler:
    """What all jobs of a call share."""

    machine: Machine
    device: str
    stop: StopRequest
    console: Console

    def work(self, what: str, jobs: Sequence[Job]) -> list[str]:
        """Do the remaining jobs, several at a time; returns a line for each that failed."""
        todo = [job for job in jobs if not job.is_done()]
        failed, done = [], len(jobs) - len(todo)
        with showing_progress(self.console) as progress, ThreadPoolExecutor(self.machine.jobs) as pool:
            futures = {pool.submit(self._do, job): job for job in todo}
            try:
                while futures:
                    for future in wait(futures, LOOK_SECONDS, FIRST_COMPLETED).done:
                        job, (end, why) = futures.pop(future), future.result()
                        done += end == "done"
                        failed += [f"{job}: {why}"] if why else []
                        print_lines(self.console, f"{job}: {end} ({done} of {len(jobs)} {what})")
                    if self.stop.requested:
                        futures = {future: job for future, job in futures.items() if not future.cancel()}
                    self._show(
                        progress, what, done, len(jobs), [job for future, job in futures.items() if future.running()]
                    )
            except BaseException:
                self.stop.requested = True  # or the pool would do the jobs that are left
                raise
        return failed

    def _show(self, progress: Progress, what: str, done: int, total: int, running: Sequence[Job]) -> None:
        shares = {job: job.share() for job in running}
        percent = round(100 * (done + sum(shares.values())) / total)
        detail = ", ".join(f"{job} {share:.0%}" if share else str(job) for job, share in shares.items())
        progress(f"percent of all {what}", percent, 100, detail)

    def _do(self, job: Job) -> tuple[str, str]:
        """Run a job to its end, or to a requested stop; returns how it ended and, if it failed, why."""
        try:
            # To score a finished run again is not part of its time.
            record = None if not job.is_network and job.is_trained() else job.record
            with sitting(record, self.machine, job.perceptual) as cpu_seconds:
                for command in job.commands(self.machine, self.device):
                    call(command, job.log, self.machine.threads, self.stop, cpu_seconds)
            if not job.is_network:
                write_json(job.result, collect(job))
        except Stopped:
            return "stopped" if job.is_network else "saved", ""
        except HdganError as error:
            return "failed", str(error)
        return "done", ""
