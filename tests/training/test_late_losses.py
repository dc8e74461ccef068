"""A step is finished one step late: what it reports, what a loss does that is not finite, and that nothing waits."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hdgan.errors import HdganError, TrainingError
from hdgan.families.common.batch import Objectives
from hdgan.sharding.world import World
from hdgan.training import AugmentConfig, OptimConfig, TrainConfig
from hdgan.training.readback import Readback
from hdgan.training.setup import prepare
from hdgan.training.state import StageState
from hdgan.training.trainer import StepResult, Trainer
from tests.training.test_trainer import CPU, make_inputs, make_state, make_trainer, moved, take_step

AUGMENT = AugmentConfig(("color", "translation", "cutout"), probability=0.5, adaptive=True)


def everything_trained(state: StageState) -> dict[str, Tensor]:
    """Copies of the weights, of their average, of Adam's moments, and of what else a step changes."""
    weights = {f"weight {name}": value for name, value in state.model.state_dict().items() if "norm" not in name}
    average = {f"average {name}": value for name, value in state.ema.state_dict().items()}
    moments = {
        f"{name} {number} {kind}": value
        for name, optimizer in state.optimizers.items()
        for number, kinds in optimizer.state_dict()["state"].items()
        for kind, value in kinds.items()
    }
    augmentation = {"augmentation": torch.tensor(state.augmentation.state().get("augmentation", ()))}
    pool = {f"pool {number}": image for number, (_, image) in enumerate(state.pool.pairs)}
    return {name: value.clone() for name, value in (weights | average | moments | augmentation | pool).items()}


def spoil(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Let a loss of every further step be infinite, as its gradients then are as well."""
    plain = type(trainer.criterion).__call__

    def spoilt(self: Any, *arguments: Any) -> Objectives:
        objectives = plain(self, *arguments)
        objectives.parts[self.names.index(part)] = float("inf")
        return replace(objectives, generator=objectives.generator * float("inf"))

    monkeypatch.setattr(type(trainer.criterion), "__call__", spoilt)


def test_a_step_is_finished_while_the_next_one_runs(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Results come one step late and in order; the average follows the weights of its own step."""
    config = make_config(tmp_path)
    late, prompt = (make_trainer(config, make_state(config)) for _ in range(2))
    results: list[StepResult] = []
    late.on_result = results.append
    expected = []
    for step in range(3):
        late.train_step(make_inputs(2, torch.float32, step))
        assert [result.step for result in results] == list(range(7, 7 + step))
        average = {name: value.clone() for name, value in late.state.ema.state_dict().items()}
        assert all(torch.equal(average[name], value) for name, value in prompt.state.ema.state_dict().items())
        expected.append(take_step(prompt, make_inputs(2, torch.float32, step)))
    late.finish()
    late.finish()  # nothing is left to do
    assert results == expected
    ours, theirs = everything_trained(late.state), everything_trained(prompt.state)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_finished_stage_frees_its_networks_at_once(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Without waiting for Python's search for cycles: the networks of the next stage need the memory."""
    trainer = make_trainer(make_config(tmp_path), make_state(make_config(tmp_path)))
    take_step(trainer, make_inputs(2, torch.float32))
    networks = weakref.ref(trainer.state.model)
    gc.disable()
    try:
        del trainer
        assert networks() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="this system does not tell of the death of a process")
def test_the_death_of_a_reader_leaves_no_step_half_finished(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may die while a step waits for its losses, before the average has moved."""

    def reader_died(*_: object) -> None:
        raise RuntimeError("DataLoader worker is killed")

    def read_late(self: Readback) -> list[float]:
        os.kill(os.getpid(), signal.SIGCHLD)
        return plain(self)

    config = make_config(tmp_path)
    disturbed, expected = (make_trainer(config, make_state(config)) for _ in range(2))
    result = take_step(expected, make_inputs(2, torch.float32))
    results: list[StepResult] = []
    disturbed.on_result = results.append
    plain = Readback.tolist
    monkeypatch.setattr(Readback, "tolist", read_late)
    before = signal.signal(signal.SIGCHLD, reader_died)
    try:
        disturbed.train_step(make_inputs(2, torch.float32))
        disturbed.finish()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert results == [result]
    ours, theirs = everything_trained(disturbed.state), everything_trained(expected.state)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


class Waits(TorchDispatchMode):
    """Refuses the operators whose results the host has to know, and for which it would wait on a GPU."""

    OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.OPERATORS, func
        return func(*args, **(kwargs or {}))


def test_a_step_asks_its_device_for_no_number(make_family_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """All families; with clipping, augmentation, and with features, whose instances were found in advance."""
    config = make_family_config(tmp_path / "run", optim=OptimConfig(clip=1.0))
    if config.model.has_discriminator:
        config = replace(config, augment=AUGMENT)
    run = prepare(config, False, World(0, 1, CPU), Console(quiet=True))
    stage = run.stages[-1]
    trainer = Trainer(run.config, StageState(run.config, stage, CPU), run.perceptual, run.world)
    batches = [batch.indexed(None) if config.model.feature_channels else batch for batch in run.batches(stage, 0, 3)]
    with pytest.raises(AssertionError, match="_local_scalar_dense"), Waits():
        batches[0].photo.mean().item()
    with Waits():
        for batch in batches:
            trainer.train_step(batch)
    assert trainer.state.step_in_stage == 3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("part", ["g_gan", "d_real"])
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later"])
def test_a_loss_that_is_not_finite_moves_nothing(
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    first: bool,
    device: str,
) -> None:
    """The next step says so, and does not move anything either."""
    config = replace(make_config(tmp_path), optim=OptimConfig(clip=1.0, pool_size=3), augment=AUGMENT)
    trainer = make_trainer(config, make_state(config, device=torch.device(device)))
    inputs = moved(make_inputs(2, torch.float32), torch.device(device))
    if not first:
        take_step(trainer, inputs)
    before, step = everything_trained(trainer.state), trainer.state.step
    spoil(trainer, monkeypatch, part)
    trainer.train_step(inputs)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match=rf"^step {step + 1} of stage joint: {part} is inf; "):
        trainer.train_step(inputs)
    assert (trainer.state.step, trainer.updating) == (step, False)
    after = everything_trained(trainer.state)
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []
    assert len(trainer.state.pool.pairs) == (0 if first else 2)
    moments = {value for name, value in after.items() if name not in before}  # of a first step: as they begin
    assert all(not value.any() for value in moments)


def test_a_step_without_memory_leaves_the_pool_as_it_was(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(make_config(tmp_path), optim=OptimConfig(pool_size=3))
    trainer = make_trainer(config, make_state(config))
    take_step(trainer, make_inputs(2, torch.float32))
    before = list(trainer.state.pool.pairs)
    plain = type(trainer.criterion).__call__

    def too_large(self: Any, *arguments: Any) -> Objectives:
        plain(self, *arguments)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(trainer.criterion), "__call__", too_large)
    with pytest.raises(HdganError, match="does not fit into the memory"):
        trainer.train_step(make_inputs(2, torch.float32, 1))
    assert len(before) == 2
    assert all(pair is other for pair, other in zip(trainer.state.pool.pairs, before, strict=True))
