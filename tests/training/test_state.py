"""Which weights a stage trains, and what it takes over from the stage before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from hdgan.checkpoints import MODEL_FILE, checkpoint_path
from hdgan.errors import CheckpointError
from hdgan.training import LogConfig, OptimConfig, TrainConfig, train
from hdgan.training.schedule import plan
from hdgan.training.state import StageState

MakeConfig = Callable[..., TrainConfig]
CPU = torch.device("cpu")


def names_of(state: StageState, parameters: list[Tensor]) -> set[str]:
    wanted = {id(p) for p in parameters}
    return {".".join(name.split(".")[:2]) for name, p in state.model.named_parameters() if id(p) in wanted}


def states(config: TrainConfig) -> list[StageState]:
    found: list[StageState] = []
    for stage in plan(config, 6):
        found.append(StageState(config, stage, CPU, found[-1].model if found else None))
    return found


def test_each_stage_trains_its_own_networks(make_config: MakeConfig, tmp_path: Path) -> None:
    first, second, third = states(make_config(tmp_path))
    encoder = {"encoder.head", "encoder.trunk"}
    assert names_of(first, first.g_parameters) == {"generator.trunk", "generator.head"} | encoder
    assert names_of(second, second.g_parameters) == {"generator.enhancers", "generator.head"}
    assert names_of(third, third.g_parameters) == {
        "generator.coarse", "generator.enhancers", "generator.head"
    } | encoder  # fmt: skip
    for state in (first, second, third):
        assert names_of(state, state.d_parameters) == {"discriminator.scales"}
        assert all(p.requires_grad for p in state.d_parameters)
    assert not any(p.requires_grad for p in second.model.encoder.parameters())  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in second.model.generator.coarse.parameters())


def test_a_second_enhancer_trains_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    stages = dict(config.stages)
    stages["finest"] = replace(stages["enhancer"], n_enhancers=2)
    *_, joint, finest = states(replace(config, stages=stages))
    trained = {id(p) for p in finest.g_parameters}
    coarser, finer = finest.model.generator.enhancers
    assert not any(id(p) in trained for p in coarser.parameters())
    assert all(id(p) in trained for p in finer.parameters())
    assert torch.equal(coarser.up.weight, joint.model.generator.enhancers[0].up.weight)


def test_a_stage_takes_over_what_it_knows(make_config: MakeConfig, tmp_path: Path) -> None:
    first, second, third = states(make_config(tmp_path))
    for name, weight in first.model.generator.trunk.state_dict().items():
        assert torch.equal(second.model.generator.coarse.state_dict()[name], weight)
    # D's coarsest scale sees the resolution that it saw before; the finer one is new.
    known, before = second.model.discriminator.scales[-1], first.model.discriminator.scales[0]
    assert torch.equal(known.convs[0].weight, before.convs[0].weight)
    new = second.model.discriminator.scales[0]
    assert not torch.equal(new.convs[0].weight, before.convs[0].weight)
    for name, weight in second.model.state_dict().items():
        assert torch.equal(third.model.state_dict()[name], weight)
    for name, weight in third.ema.state_dict().items():
        assert torch.equal(weight, third.model.state_dict()[name])


def test_weights_depend_on_the_seed_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    torch.rand(3)
    one, two, other = states(config)[0], states(config)[0], states(replace(config, seed=1))[0]
    weights = [state.model.generator.head.weight for state in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_enhancer_stage_leaves_the_rest_of_g_and_e_as_they_were(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(tmp_path / "run", log=LogConfig(keep=10, val_images=1)), console=Console(quiet=True))
    kinds = [load_file(checkpoint_path(tmp_path / "run", step) / MODEL_FILE) for step in (3, 6, 9)]
    for prefix in ("", "ema."):
        fixed = 0
        for key, value in kinds[1].items():
            for mine, theirs in (("generator.coarse.", "generator.trunk."), ("encoder.", "encoder.")):
                if key.startswith(prefix + mine):
                    # The average starts anew with each stage, so it holds the fixed weights themselves.
                    assert torch.equal(value, kinds[0][key.removeprefix(prefix).replace(mine, theirs)])
                    fixed += 1
        assert fixed > 10
        for moved in ("generator.coarse.stem.weight", "encoder.head.weight", "generator.enhancers.0.down.weight"):
            assert not torch.equal(kinds[2][prefix + moved], kinds[1][prefix + moved])
    assert not torch.equal(kinds[2]["discriminator.scales.1.convs.0.weight"],
                           kinds[1]["discriminator.scales.1.convs.0.weight"])  # fmt: skip


def test_a_checkpoint_of_another_schedule_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first, second, _ = states(config)
    second.step += 2
    saved = (second.model.state_dict(), second.ema.state_dict(), second.training_state())
    longer = dict(config.stages) | {"global": replace(config.stages["global"], images=8)}
    with pytest.raises(
        CheckpointError, match=r"stage enhancer, which began at step 3, but the schedule is now .* step 4"
    ):
        states(replace(config, stages=longer))[1].load(*saved)
    shorter = dict(config.stages) | {"enhancer": replace(config.stages["enhancer"], images=2)}
    with pytest.raises(CheckpointError, match="from step 5, but in the new schedule stage enhancer ends at step 4"):
        states(replace(config, stages=shorter))[1].load(*saved)
    others = dict(config.stages) | {"enhancer": replace(config.stages["enhancer"], encoder=True)}
    with pytest.raises(CheckpointError, match="does not train the same networks"):
        states(replace(config, stages=others))[1].load(*saved)
    assert first.step_in_stage == 0


def stepped(state: StageState, steps: int) -> StageState:
    """Take steps with gradients that depend on the step alone."""
    for _ in range(steps):
        torch.manual_seed(state.step)
        for parameter in state.model.parameters():
            if parameter.requires_grad:
                # The layout of the parameter, as autograd gives it.
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        for optimizer in state.optimizers.values():
            optimizer.step()
        state.ema.update(state.step_in_stage)
        state.step += 1
    return state


def continued(config: TrainConfig, saved: StageState) -> StageState:
    state = StageState(config, saved.stage, CPU)
    state.load(saved.model.state_dict(), saved.ema.state_dict(), copy.deepcopy(saved.training_state()))
    return state


@pytest.mark.parametrize("formats", [("contiguous", "channels_last"), ("channels_last", "contiguous")])
def test_moments_follow_a_changed_memory_format(
    make_config: MakeConfig, tmp_path: Path, formats: tuple[Any, Any]
) -> None:
    before, after = (make_config(tmp_path, memory_format=name) for name in formats)
    saved = stepped(states(before)[0], 2)
    other, control = stepped(continued(after, saved), 1), stepped(saved, 1)
    changed = [p for p in other.g_parameters if p.dim() == 4 and not p.is_contiguous()]
    assert bool(changed) == (formats[1] == "channels_last")
    for (name, mine), theirs in zip(other.model.named_parameters(), control.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    for name, optimizer in other.optimizers.items():
        for mine, theirs in zip(optimizer.state.values(), control.optimizers[name].state.values(), strict=True):
            torch.testing.assert_close(mine["exp_avg"], theirs["exp_avg"], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(mine["exp_avg_sq"], theirs["exp_avg_sq"], rtol=1e-5, atol=1e-6)


def test_a_resume_takes_the_betas_of_its_config(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    saved = stepped(states(config)[0], 1)
    other = continued(replace(config, optim=OptimConfig(beta1=0.9, beta2=0.99, ema_decay=0.9)), saved)
    assert {group["betas"] for o in other.optimizers.values() for group in o.param_groups} == {(0.9, 0.99)}
    assert other.step == 1


def test_the_batch_of_a_stage_that_has_begun_stays(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first = stepped(states(config)[0], 1)
    larger = replace(config.stages["global"], batch_size=3)
    changed = replace(config, stages=config.stages | {"global": larger})
    saved = (first.model.state_dict(), first.ema.state_dict(), first.training_state())
    message = r"stage global started with batches of 2, but --stages\.global\.batch-size is 3"
    with pytest.raises(CheckpointError, match=message):
        states(changed)[0].load(*saved)
    later = replace(config, stages=config.stages | {"joint": replace(config.stages["joint"], batch_size=3)})
    states(later)[0].load(*saved)
