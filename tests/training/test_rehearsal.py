"""`hdgan-train --dry-run`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan.errors import CheckpointError, ConfigError
from hdgan.training import TrainConfig, rehearsal, train
from hdgan.training.distributed import World
from hdgan.training.gradients import StepGradients
from hdgan.training.rehearsal import rehearse

QUIET = Console(quiet=True)
MakeConfig = Callable[..., TrainConfig]


def test_every_stage_is_estimated_and_nothing_is_written(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    text = io.StringIO()
    estimates = rehearse(config, Console(file=text, width=160))
    assert not config.out.exists()
    assert [(e.stage.name, e.steps, e.size) for e in estimates] == [
        ("global", 3, "16x8"),
        ("enhancer", 3, "32x16"),
        ("joint", 3, "32x16"),
    ]
    small, enhancer, joint = estimates
    assert joint.trained > enhancer.trained
    for estimate in estimates:
        assert estimate.step_seconds > 0
        assert estimate.seconds == estimate.steps * estimate.step_seconds
        # Gradients and the two moments of Adam are counted at the least.
        assert estimate.peak_bytes > estimate.saved_bytes + 4 * estimate.trained
    assert small.saved_bytes < joint.saved_bytes
    assert any(layer.layer.startswith("discriminator.scales.0") for layer in joint.layers)
    for word in ("enhancer", "32x16", "all stages", "MiB", "kept for backward in stage"):
        assert word in text.getvalue()


def test_recomputation_shows(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    config = replace(config, stages={"global": config.stages["global"]})
    (less,), (more,) = rehearse(config, QUIET), rehearse(replace(config, recompute=False), QUIET)
    assert less.saved_bytes < 0.9 * more.saved_bytes


def test_a_run_that_has_begun_is_estimated_from_there(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    first = replace(config, stages={"global": config.stages["global"]})
    train(first, console=QUIET)
    before = {file: file.stat().st_mtime_ns for file in config.out.rglob("*")}
    assert [e.stage.name for e in rehearse(config, QUIET, resume=True)] == ["enhancer", "joint"]
    assert {file: file.stat().st_mtime_ns for file in config.out.rglob("*")} == before
    with pytest.raises(ConfigError, match="already holds a run"):
        rehearse(config, QUIET)


def test_weights_that_cannot_be_used_show(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"gone.* does not exist"):
        rehearse(replace(config, init_from=tmp_path / "gone"), QUIET)
    shorter = replace(config, stages={"global": config.stages["global"]})
    train(shorter, console=QUIET)
    wider = replace(config.model, generator=replace(config.model.generator, ngf=6))
    with pytest.raises(ConfigError, match=r"--init-from .* has another architecture"):
        rehearse(replace(config, out=tmp_path / "other", init_from=config.out, model=wider), QUIET)
    with pytest.raises(ConfigError, match="has no effect on a run that has begun"):
        rehearse(replace(config, init_from=Path("elsewhere")), QUIET, resume=True)
    with pytest.raises(CheckpointError, match="has another architecture than the run's config"):
        rehearse(replace(config, model=wider), QUIET, resume=True)


def test_a_stage_that_does_not_fit_says_what_helps(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        torch.empty(10**15)

    monkeypatch.setattr(StepGradients, "__call__", fail)
    with pytest.raises(ConfigError, match=r"stage global, with batches of 2, .* memory of cpu: --precision bfloat16"):
        rehearse(make_config(tmp_path / "run"), QUIET)


def test_several_processes_are_refused(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, 2, torch.device("cpu"))
    monkeypatch.setattr(rehearsal, "join_world", lambda device: contextlib.nullcontext(world))
    with pytest.raises(ConfigError, match="--dry-run is for one process: run it without torchrun"):
        rehearse(make_config(tmp_path / "run"), QUIET)
