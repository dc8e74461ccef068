"""`hdgan-train --dry-run`."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hdgan.config.options import typed_as
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import Pix2PixHDLoss
from hdgan.sharding.world import World
from hdgan.training import TrainConfig, train
from hdgan.training import dry_run as module
from hdgan.training.dry_run import dry_run
from hdgan.training.estimate import estimate_stage
from hdgan.training.peak_memory import PeakMeter
from hdgan.training.setup import prepare
from hdgan.training.state import StageState
from hdgan.training.trainer import Trainer, forward_backward

QUIET = Console(quiet=True)
MakeConfig = Callable[..., TrainConfig]


def test_every_stage_is_estimated_and_nothing_is_written(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    text = io.StringIO()
    timings = dry_run(config, Console(file=text, width=160))
    assert not config.out.exists()
    estimates = [timing.estimate for timing in timings]
    assert [(e.stage.name, e.steps, e.size) for e in estimates] == [
        ("global", 3, (16, 8)),
        ("enhancer", 3, (32, 16)),
        ("joint", 3, (32, 16)),
    ]
    small, enhancer, joint = estimates
    assert joint.trained > enhancer.trained
    for timing in timings:
        estimate = timing.estimate
        assert timing.step_seconds > 0
        assert timing.seconds == estimate.steps * timing.step_seconds
        # Gradients and the two moments of Adam are counted at the least.
        assert estimate.peak_bytes > estimate.saved_bytes + 4 * estimate.trained
    assert small.saved_bytes < joint.saved_bytes
    assert any(layer.layer.startswith("discriminator.scales.0") for layer in joint.layers)
    printed = text.getvalue()
    for words in (
        "6 training images; 2 images of test",
        "32x16",
        "all stages",
        "MiB",
        "kept for the backward pass in stage",
    ):
        assert words in printed
    assert (
        printed.index("kept for the backward pass in")
        < printed.index("\nstage global: ")
        < printed.index("\nstage joint: ")
    )


@pytest.mark.parametrize(("precision", "noted"), [("bfloat16", True), ("float32", False)])
def test_a_cpu_without_bfloat16_has_a_note(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, noted: bool
) -> None:
    monkeypatch.setattr("hdgan.training.setup.emulates_bfloat16", lambda device: True)
    text = io.StringIO()
    prepare(
        make_config(tmp_path / "run", precision=precision),
        False,
        World(0, 1, torch.device("cpu")),
        Console(file=text, width=160),
    )
    note = "this CPU has no instructions for bfloat16: precision float32 is faster"
    assert (note in text.getvalue()) == noted


def test_no_weights_are_needed(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG19 is estimated by its shapes, and timed with random weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    config = make_config(tmp_path / "run")
    stage = replace(config.stages["global"], size=config.stages["joint"].size)
    config = replace(config, stages={"global": stage}, loss=replace(config.loss, vgg=10.0))
    text = io.StringIO()
    (timing,) = dry_run(config, Console(file=text, width=160))
    assert timing.estimate.peak_bytes > 4 * 12_900_000  # weights of VGG19 up to relu5_1
    assert "a run downloads VGG19's weights" in text.getvalue()
    assert "timed with random weights instead" in text.getvalue()
    assert not list(tmp_path.iterdir())


def test_recomputation_shows(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    config = replace(config, stages={"global": config.stages["global"]})
    (less,), (more,) = dry_run(config, QUIET), dry_run(replace(config, recompute=False), QUIET)
    assert less.estimate.saved_bytes < 0.9 * more.estimate.saved_bytes


@pytest.mark.parametrize("r1", [0.0, 1.0])
def test_an_estimate_is_near_a_real_step(make_config: MakeConfig, tmp_path: Path, r1: float) -> None:
    """The shapes of a step tell its peak of memory as a meter around a real one does, also where a penalty is due."""
    config = make_config(tmp_path / "run", loss=Pix2PixHDLoss(vgg=0.0, r1=r1))
    model: Any = config.model
    discriminator = replace(model.discriminator, spectral_norm=bool(r1))
    config = replace(config, model=replace(model, discriminator=discriminator))
    config = replace(config, stages={"global": config.stages["global"]})
    run = prepare(config, False, World(0, 1, torch.device("cpu")), QUIET)
    (stage,) = run.stages
    estimate = estimate_stage(config, stage, run.data, None, 0)
    state = StageState(config, stage, torch.device("cpu"))
    criterion = config.loss.criterion(None, state.pool, state.augmentation)
    batch = next(run.batches(stage, 0, 1))
    with PeakMeter() as meter:
        forward_backward(config, state, criterion, batch, criterion.penalty)
    held = sum(p.nbytes for p in state.model.parameters()) + sum(p.nbytes for p in state.ema.model.parameters())
    moments = 2 * sum(p.nbytes for p in (*state.g_parameters, *state.d_parameters))
    assert estimate.peak_bytes == pytest.approx(meter.peak + held + moments, rel=0.1)


def test_a_run_that_has_begun_is_estimated_from_there(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    first = replace(config, stages={"global": config.stages["global"]})
    train(first, console=QUIET)
    before = {file: file.stat().st_mtime_ns for file in config.out.rglob("*")}
    assert [timing.estimate.stage.name for timing in dry_run(config, QUIET, resume=True)] == ["enhancer", "joint"]
    assert {file: file.stat().st_mtime_ns for file in config.out.rglob("*")} == before
    with pytest.raises(ConfigError, match="already contains a run"):
        dry_run(config, QUIET)


def test_weights_that_cannot_be_used_show(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"gone.* does not exist"):
        dry_run(replace(config, init_from=tmp_path / "gone"), QUIET)
    shorter = replace(config, stages={"global": config.stages["global"]})
    train(shorter, console=QUIET)
    wider = replace(config.model, generator=replace(config.model.generator, ngf=6))
    with pytest.raises(ConfigError, match=r"init_from .* does not have the architecture of stage"):
        dry_run(replace(config, out=tmp_path / "other", init_from=config.out, model=wider), QUIET)
    with pytest.raises(ConfigError, match="has no effect on a run that has already started"):
        dry_run(replace(config, init_from=Path("elsewhere")), QUIET, resume=True)
    with pytest.raises(CheckpointError, match="does not have the architecture of the run's config"):
        dry_run(replace(config, model=wider), QUIET, resume=True)


def test_a_stage_that_does_not_fit_says_what_helps(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        torch.empty(10**15)

    message = r"stage global, with 2 images per batch and process, .* memory of cpu: --precision bfloat16"
    monkeypatch.setattr(Trainer, "train_step", fail)
    with typed_as(), pytest.raises(ConfigError, match=message):
        dry_run(make_config(tmp_path / "run"), QUIET)
    monkeypatch.setattr(module, "_physical_memory", lambda: 1000)
    with typed_as(), pytest.raises(ConfigError, match=message):
        dry_run(make_config(tmp_path / "run"), QUIET)


def test_several_processes_are_refused(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(0, 2, torch.device("cpu"))
    monkeypatch.setattr(module, "join_world", lambda device: contextlib.nullcontext(world))
    with pytest.raises(ConfigError, match="dry_run works only in one process: run it without torchrun"):
        dry_run(make_config(tmp_path / "run"), QUIET)


def test_a_pytorch_without_fake_tensors_says_so(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no public name; training itself needs none of them."""
    monkeypatch.setitem(sys.modules, "torch._subclasses.fake_tensor", None)
    monkeypatch.delitem(sys.modules, "hdgan.training.peak_memory")
    with (
        typed_as(),
        pytest.raises(ConfigError, match=r"memory of a step cannot be estimated with PyTorch \d.*: install"),
    ):
        dry_run(make_config(tmp_path / "run"), QUIET)
