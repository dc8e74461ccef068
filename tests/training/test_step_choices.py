"""What `auto` means for recomputation and for CUDA graphs, and that users read why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hdgan.families import Pix2PixHDLoss
from hdgan.sharding.world import World
from hdgan.training import OptimConfig, TrainConfig, step_choices, train
from hdgan.training.run_folder import load_environment
from hdgan.training.setup import RunSetup, prepare
from hdgan.training.step_choices import MARGIN, SHARE_OF_CPU, StepChoices, choose_steps

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
GPU = torch.device("cuda", 0)


def prepared(config: TrainConfig, device: torch.device | None = None, processes: int = 1) -> RunSetup:
    """The setup of a run, as if it were one on another device or one of several processes."""
    run = prepare(config, False, World(0, 1, torch.device("cpu")), QUIET)
    return replace(run, world=World(0, processes, device or torch.device("cpu")))


def with_memory(monkeypatch: pytest.MonkeyPatch, available: float | None) -> None:
    found = None if available is None else int(available)
    monkeypatch.setattr(step_choices, "available_memory", lambda device: found)


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> TrainConfig:
    """A run whose graphs nothing forbids but its device."""
    config = make_config(tmp_path / "run", recompute="auto", loss=Pix2PixHDLoss(vgg=0.0))
    return replace(config, model=replace(config.model, feature_channels=0))


def test_stages_recompute_where_they_would_not_fit_otherwise(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(config, GPU)
    without = replace(run.config, recompute=False)
    needed = {
        stage.name: MARGIN * step_choices.estimate_stage(without, stage, run.data, None, 0).peak_bytes
        for stage in run.stages
    }
    assert needed["joint"] > needed["enhancer"]
    with_memory(monkeypatch, needed["enhancer"] + 1)
    found = choose_steps(run, 0)
    assert {name: choices.recompute for name, choices in found.items()} == {
        name: needed[name] > needed["enhancer"] for name in ("global", "enhancer", "joint")
    }
    assert "without it, a step needs about" in found["joint"].why_recompute
    assert "MiB, more than the" in found["joint"].why_recompute
    assert list(choose_steps(run, 3)) == ["enhancer", "joint"]
    assert found["joint"].applied(config).recompute is True
    assert found["enhancer"].applied(config).recompute is False


def test_a_run_on_a_cpu_leaves_memory_to_others(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, stages={"joint": config.stages["joint"]})
    needed = []
    for processes in (1, 2):
        run = prepared(config, processes=processes)
        without = replace(run.config, recompute=False)
        (stage,) = run.stages
        estimate = step_choices.estimate_stage(without, stage, run.data, None, 0, processes)
        needed.append(MARGIN * estimate.peak_bytes / SHARE_OF_CPU * processes)
        for available, expected in ((needed[-1] + 4, False), (needed[-1] - 4, True)):
            with_memory(monkeypatch, available)
            assert choose_steps(run, 0)["joint"].recompute == expected
    assert needed[1] < 2 * needed[0]  # half of the batch each


def test_what_cannot_be_known_is_recomputed(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(config)
    with_memory(monkeypatch, None)
    choices = choose_steps(run, 0)["joint"]
    assert (choices.recompute, choices.why_recompute) == (True, "the free memory of cpu is not known")
    with_memory(monkeypatch, 1 << 50)
    monkeypatch.setitem(sys.modules, "torch._subclasses.fake_tensor", None)
    monkeypatch.delitem(sys.modules, "hdgan.training.peak_memory", raising=False)
    choices = choose_steps(run, 0)["joint"]
    assert choices.recompute
    assert "cannot be estimated with PyTorch" in choices.why_recompute


@pytest.mark.parametrize("requested", [True, False])
def test_what_the_user_requests_is_done(config: TrainConfig, requested: bool) -> None:
    run = prepared(replace(config, recompute=requested), GPU)
    run = replace(run, config=replace(run.config, cuda_graphs=requested))
    choices = choose_steps(run, 0)["joint"]
    assert choices == StepChoices(requested, "as requested", requested, "as requested")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"features": 2}, "model.feature_channels makes tables"),
        ({"optim": OptimConfig(pool_size=2)}, "optim.pool_size"),
        ({"micro_batch": 1}, "stages.joint.micro_batch"),
    ],
)
def test_graphs_are_used_wherever_they_can_hold_a_step(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    with_memory(monkeypatch, None)
    joint = replace(config.stages["joint"], micro_batch=change.pop("micro_batch", None))
    model = replace(config.model, feature_channels=change.pop("features", 0))
    config = replace(config, model=model, stages=config.stages | {"joint": joint}, **change)
    found = choose_steps(prepared(config, GPU), 0)
    assert found["joint"].cuda_graphs == (not reason)
    assert found["joint"].why_cuda_graphs.startswith(reason or "possible")
    assert found["global"].cuda_graphs == (not reason or "micro_batch" in reason)
    on_cpu = choose_steps(prepared(config), 0)["joint"]
    assert (on_cpu.cuda_graphs, on_cpu.why_cuda_graphs) == (False, "device cpu is not a GPU")


def test_images_of_several_sizes_take_no_graph(
    config: TrainConfig, make_data: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory(monkeypatch, None)
    run = prepared(config, GPU)
    run = replace(run, data=replace(run.data, train_sizes=[(32, 16), (32, 24)]))
    choices = choose_steps(run, 0)["joint"]
    assert (choices.cuda_graphs, choices.why_cuda_graphs) == (False, "the images differ in size")


def test_a_run_says_how_its_steps_run(config: TrainConfig) -> None:
    train(replace(config, stages={"global": config.stages["global"]}), console=QUIET)
    steps = load_environment(config.out).steps
    assert steps is not None
    assert list(steps) == ["global"]
    assert "recompute off (without it, a step needs about" in steps["global"]
    assert "CUDA graphs off (device cpu is not a GPU)" in steps["global"]
