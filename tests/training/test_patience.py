"""Early stopping: a stage that no longer improves ends, and everything after it is as if it had been planned so."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hdgan.checkpoints import MODEL_FILE, TRAINING_FILE, best_step, checkpoint_path, list_steps
from hdgan.errors import ConfigError
from hdgan.training import LogConfig, TrainConfig, load_config, loop, saving, train, write_report
from hdgan.training.logs import read_metrics
from hdgan.training.validation import Validation
from tests.training.test_loop import at_step, interrupt

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
DISTANCES = {1: 0.9, 2: 0.5, 3: 0.6, 4: 0.7, 5: 0.1, 6: 0.1, 11: 0.3, 12: 0.2, 13: 0.1}
"""Of the checkpoints of the steps: the first stage, of ten steps, is best after the second."""


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints have the distances of the table; drawing charts takes longer than these runs."""
    for module in (loop, saving):
        monkeypatch.setattr(module, "write_report", lambda run: run / "report.html")
    save = saving.Saver._save

    def saved(self: saving.Saver, *, measure: bool) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(Validation, "__call__", lambda *_: {"val_l1": DISTANCES[self.state.step]})
            return save(self, measure=measure)

    monkeypatch.setattr(saving.Saver, "_save", saved)


@pytest.fixture
def make_patient(make_config: MakeConfig) -> MakeConfig:
    """A stage of ten steps and one of three, a checkpoint after every step, and patience for two."""

    def make(out: Path, **options: Any) -> TrainConfig:
        log = LogConfig(metrics_every=1, samples_every=100, checkpoint_every=1, keep=9, val_images=1, style_images=1)
        config = make_config(out, log=replace(log, patience=2), **options)
        return replace(
            config, stages={"global": replace(config.stages["global"], images=20), "joint": config.stages["joint"]}
        )

    return make


def steps_of(run: Path) -> list[tuple[str, int]]:
    return [(record["stage"], record["step"]) for record in read_metrics(run) if "lr" in record]


def test_a_stage_ends_and_the_next_keeps_its_numbers(make_patient: MakeConfig, tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=300)
    config = make_patient(tmp_path / "run")
    result = train(config, console=console)
    assert (result.finished, result.step, result.total_steps) == (True, 13, 13)
    assert steps_of(config.out) == [*(("global", k) for k in (1, 2, 3, 4)), *(("joint", k) for k in (11, 12, 13))]
    text = "stage global ends after step 4 instead of 10: val_l1 has not improved since step 2, for 2 checkpoints"
    assert text in console.export_text()
    [event] = [record for record in read_metrics(config.out) if "event" in record]
    assert (event["event"], event["step"], event["text"]) == ("early_end", 10, text)
    assert list_steps(config.out) == [1, 2, 3, 10, 11, 12, 13]  # step 4 is that of the jump
    assert best_step(config.out) == 13


def test_the_report_counts_what_was_trained(
    make_patient: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_patient(tmp_path / "run")
    train(replace(config, stages={"global": config.stages["global"]}), console=QUIET)
    page = write_report(config.out).read_text(encoding="utf-8")
    assert '<span class="state finished">finished</span>' in page
    assert '<td class="number">4 <small>of 10</small></td>' in page
    assert "stage global ends after step 4 instead of 10" in page


def contents(run: Path) -> dict[str, Any]:
    folder = checkpoint_path(run, list_steps(run)[-1])
    weights = load_file(folder / MODEL_FILE)
    training = torch.load(folder / TRAINING_FILE, weights_only=True)
    return {"weights": {k: v.tolist() for k, v in weights.items()}, "best": training["best"], "step": training["step"]}


@pytest.mark.parametrize("step", [2, 3, 4, 11])
def test_an_interrupted_run_is_as_patient(
    make_patient: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    undisturbed, config = make_patient(tmp_path / "undisturbed"), make_patient(tmp_path / "run")
    train(undisturbed, console=QUIET)

    with monkeypatch.context() as patch:
        at_step(patch, step, interrupt)
        assert not train(config, console=QUIET).finished
    assert train(load_config(config.out), resume=True, console=QUIET).finished
    assert steps_of(config.out) == steps_of(undisturbed.out)
    assert contents(config.out) == contents(undisturbed.out)
    assert list_steps(config.out) == list_steps(undisturbed.out)


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [False, True], ids=["before the jump is saved", "after"])
def test_a_kill_at_the_end_of_a_stage_changes_nothing(
    make_patient: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    undisturbed, config = make_patient(tmp_path / "undisturbed"), make_patient(tmp_path / "run")
    train(undisturbed, console=QUIET)
    save = saving.save_checkpoint

    def die(*arguments: Any) -> Any:
        jump = arguments[2].step == 10
        if jump and not after:
            raise Killed
        folder = save(*arguments)
        if jump:
            raise Killed
        return folder

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", die)
        with pytest.raises(Killed):
            train(config, console=QUIET)
    assert train(load_config(config.out), resume=True, console=QUIET).finished
    assert steps_of(config.out) == steps_of(undisturbed.out)
    assert contents(config.out) == contents(undisturbed.out)
    assert [r for r in read_metrics(config.out) if "event" in r] == [
        r for r in read_metrics(undisturbed.out) if "event" in r
    ]


def test_a_run_that_has_ended_early_can_be_made_longer(make_patient: MakeConfig, tmp_path: Path) -> None:
    """It goes on from the number that it has jumped to, with its patience anew."""
    config = make_patient(tmp_path / "run")
    config = replace(config, stages={"global": config.stages["global"]})
    train(config, console=QUIET)
    longer = replace(config, stages={"global": replace(config.stages["global"], images=26)})
    train(longer, resume=True, console=QUIET)
    assert [step for _, step in steps_of(config.out)] == [1, 2, 3, 4, 11, 12, 13]


def test_without_patience_a_stage_is_trained_to_its_end(
    make_patient: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_patient(tmp_path / "run")
    config = replace(config, log=replace(config.log, patience=None))
    monkeypatch.setitem(DISTANCES, 5, 0.8)
    for step in range(7, 11):
        monkeypatch.setitem(DISTANCES, step, 0.8)
    train(config, console=QUIET)
    assert len(steps_of(config.out)) == 13
    state = torch.load(checkpoint_path(config.out, 13) / TRAINING_FILE, weights_only=True)
    assert "stale" not in state


def test_no_patience_at_all_is_refused(make_patient: MakeConfig, tmp_path: Path) -> None:
    config = make_patient(tmp_path)
    with pytest.raises(ConfigError, match=r"^log\.patience is 0"):
        replace(config, log=replace(config.log, patience=0))
