"""Going back to the last good checkpoint of a run that has failed, and on from there with lower learning rates.

A rollback does what a resume from that checkpoint would do, with the run's memory of its rollbacks written into it:

1. later checkpoints are deleted, and later samples; a checkpoint with styles gets another name, step-NUMBER-undone
2. metrics.jsonl is cut after its step, and the rollback is recorded there
3. its training.pt gets the number of rollbacks and the lower rates

If the process is killed before the third step, a resume takes the steps up to the failure again, and goes back again.
The record of the second step is then dropped, because it is of a rollback that the checkpoint does not know.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import torch
from rich.console import Console

from hdgan.checkpoints import TRAINING_FILE, checkpoint_path, list_steps
from hdgan.errors import DivergenceError
from hdgan.files import atomic_file, remove_folder, rename_folder
from hdgan.progress import print_lines
from hdgan.training.checkpoint import finish_saving, has_styles
from hdgan.training.health import Health
from hdgan.training.logs import Metrics
from hdgan.training.setup import RunSetup, saved_state
from hdgan.training.state import StageState
from hdgan.wording import count


def require_rollback(run: RunSetup, health: Health, problem: DivergenceError) -> None:
    """Raise the problem if no rollback can follow it: none is wanted, there have been too many, or there is no good
    checkpoint."""
    if run.config.health != "rollback" or health.good not in list_steps(run.config.out):
        raise problem
    if health.rollbacks >= run.config.health_rollbacks:
        made = count(health.rollbacks, "rollback")
        raise DivergenceError(f"{problem.problem}, after {made}", problem.remedy, problem.symptom) from problem


def roll_back(run: RunSetup, before: Health, problem: DivergenceError, metrics: Metrics | None) -> StageState:
    """Go back to the last good checkpoint, in all processes.

    Args:
        run: its setup.
        before: memory of the run when it failed; its networks should have been freed.
        problem: why it failed.
        metrics: of the run; None in processes other than the main one.

    Returns:
        The state to go on from.
    """
    assert before.good is not None
    folder = checkpoint_path(run.config.out, before.good)
    state = saved_state(run, before.good)  # before anything is deleted, since it may be damaged
    state.health = state.health.after_rollback(before, problem.symptom)
    run.world.barrier()  # until then, other processes may read what is being deleted
    if metrics is not None:
        for step in list_steps(run.config.out):
            if step > before.good:
                _take_away(checkpoint_path(run.config.out, step), run.console)
        _remove_samples(run.config.out, before.good)
        _record(run, state, problem, metrics)
        with atomic_file(folder / TRAINING_FILE) as temporary:
            torch.save(state.training_state(), temporary)
        finish_saving(run.config.out, run.config, state)
    run.world.barrier()
    return state


def _record(run: RunSetup, state: StageState, problem: DivergenceError, metrics: Metrics) -> None:
    health = state.health
    rates = f"G's learning rate at {health.rate_g:g} and D's at {health.rate_d:g} of the configured one"
    number = f"rollback {health.rollbacks} of at most {run.config.health_rollbacks}"
    text = f"{problem.problem}: back to step {state.step} with {rates} ({number})"
    print_lines(run.console, text)
    metrics.rewind(state.step, health.rollbacks - 1)
    metrics.event(state.step, state.stage.name, "rollback", text, rollbacks=health.rollbacks)


def _take_away(checkpoint: Path, console: Console) -> None:
    """Delete a checkpoint or, if it has styles, which are the user's work, rename it so that no resume finds it."""
    if not has_styles(checkpoint):
        remove_folder(checkpoint)
        return
    names = (f"{checkpoint.name}-undone{number or ''}" for number in itertools.count())
    kept = rename_folder(checkpoint, next(name for name in names if not checkpoint.with_name(name).exists()))
    print_lines(console, f"{checkpoint} has styles: it is kept as {kept}")


def _remove_samples(run: Path, step: int) -> None:
    """Delete the samples of later steps."""
    for folder in (run / "samples").glob("*/[0-9]*"):
        if folder.name.isdigit() and int(folder.name) > step:
            shutil.rmtree(folder, ignore_errors=True)
