"""Gradients with recomputation, from compiled networks and from a CUDA graph, and what a graph cannot hold."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hdgan.data import SizeConfig
from hdgan.errors import ConfigError
from hdgan.families import PatchConfig, Pix2PixConfig, Pix2PixHDLoss, Pix2PixLoss, Pix2PixStage, UNetConfig
from hdgan.families.common.batch import Batch
from hdgan.families.pix2pix.losses import Pix2PixCriterion
from hdgan.families.pix2pixhd.losses import Pix2PixHDCriterion
from hdgan.models.cuda_graph import CaptureError, without_trace
from hdgan.models.spectral_norm import refine
from hdgan.sharding.world import World
from hdgan.training import OptimConfig, TrainConfig, cuda_graph, setup, train
from hdgan.training.cuda_graph import GraphedGradients, compile_networks
from hdgan.training.schedule import plan
from hdgan.training.trainer import forward_backward
from tests.training.test_trainer import make_inputs, make_state

CPU = torch.device("cpu")


def parts_and_gradients(config: TrainConfig, inputs: Batch) -> list[torch.Tensor]:
    torch.manual_seed(0)
    state = make_state(config)
    compile_networks(config.compile, state.model, None)
    parts = forward_backward(
        config, state, Pix2PixHDCriterion(config.loss, None, state.pool, state.augmentation), inputs
    )
    return [parts, *(p.grad for p in (*state.g_parameters, *state.d_parameters) if p.grad is not None)]


def test_recomputation_changes_no_bit(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(2, torch.float32)
    ours = parts_and_gradients(replace(config, recompute=True), inputs)
    expected = parts_and_gradients(replace(config, recompute=False), inputs)
    assert len(ours) > 20
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_compiled_networks_compute_the_same(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config, inputs = make_config(tmp_path), make_inputs(1, torch.float32)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # of other tests
    ours = parts_and_gradients(replace(config, compile="default"), inputs)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert not torch._dynamo.utils.counters["graph_break"]
    for a, b in zip(ours, parts_and_gradients(config, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()) + 1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "device cpu is not a GPU"),
        ({"device": "cuda"}, "model.feature_channels"),
        ({"device": "cuda", "optim": OptimConfig(pool_size=2)}, "optim.pool_size"),
        ({"device": "cuda", "joint": 1}, "stages.joint.micro_batch"),
    ],
)
def test_steps_that_no_graph_can_hold_are_refused_at_the_start(
    make_config: Callable[..., TrainConfig], tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    config = make_config(tmp_path / "run", device="cpu", cuda_graphs=True)
    micro_batch = change.pop("joint", None)
    if change.get("optim") or micro_batch:
        config = replace(config, model=replace(config.model, feature_channels=0))
    last = replace(config.stages["joint"], micro_batch=micro_batch)
    config = replace(config, stages=config.stages | {"joint": last}, **change)
    with pytest.raises(ConfigError, match=f"cuda_graphs cannot be used because {reason}"):
        setup.check_cuda_graphs(config, plan(config, 6), World(0, 1, torch.device(config.device)))
    if config.device == "cpu":
        with pytest.raises(ConfigError, match=reason):
            train(config)
        assert not (config.out / "config.json").exists()


def test_a_step_that_cannot_be_captured(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error if a graph was asked for; otherwise a warning, and steps without a graph."""
    config, inputs = make_config(tmp_path), make_inputs(2, torch.float32)
    state = make_state(config)
    plain = partial(
        forward_backward, config, state, Pix2PixHDCriterion(config.loss, None, state.pool, state.augmentation)
    )
    expected = plain(inputs)

    def fail(*_: Any, **__: Any) -> None:
        raise CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graph, "capture", fail)
    with pytest.raises(ConfigError, match=r"cannot hold this step \(.*capturing\): use "):
        GraphedGradients(plain, state)(inputs)
    graphed = GraphedGradients(plain, state, required=False)
    with pytest.warns(UserWarning, match=r"cannot hold this step \(.*capturing\), so it runs without one"):
        assert torch.equal(graphed(inputs), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(graphed(inputs), expected)


class Recorded:
    """In place of a CUDA graph: a replay runs the step again and writes into the tensors of the capture."""

    def __init__(self, function: Callable[[], torch.Tensor], parameters: list[torch.Tensor]) -> None:
        self.function, self.parameters, self.replays = function, parameters, 0
        self.losses = function()
        self.grads = [p.grad for p in parameters]

    def pool(self) -> str:
        return "memory"

    def replay(self) -> None:
        self.replays += 1
        self.losses.copy_(self.function())
        for parameter, gradient in zip(self.parameters, self.grads, strict=True):
            if gradient is not None:
                gradient.copy_(parameter.grad)  # type: ignore[arg-type]
            parameter.grad = gradient


def test_steps_with_a_penalty_have_a_graph_of_their_own(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, loss=Pix2PixHDLoss(vgg=0.0, r1=1.0, r1_every=2))
    state, expected_state = make_state(config), make_state(config)
    criterion = Pix2PixHDCriterion(config.loss, None, state.pool, state.augmentation)
    parameters, graphs, pools = [*state.g_parameters, *state.d_parameters], [], []

    def record(function: Any, *_: Any, pool: Any) -> tuple[Recorded, torch.Tensor]:
        graphs.append(Recorded(function, parameters))
        pools.append(pool)
        return graphs[-1], graphs[-1].losses

    monkeypatch.setattr(cuda_graph, "capture", record)
    graphed = GraphedGradients(partial(forward_backward, config, state, criterion), state)
    for step in range(5):
        inputs, penalty = make_inputs(2, torch.float32, step), criterion.penalty if step % 2 == 0 else None
        losses = graphed(inputs, penalty)
        expected = forward_backward(config, expected_state, criterion, inputs, penalty)
        assert torch.equal(losses, expected)
        wanted = [*expected_state.g_parameters, *expected_state.d_parameters]
        for ours, theirs in zip(parameters, wanted, strict=True):
            assert (ours.grad is None and theirs.grad is None) or torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]
    assert [graph.replays for graph in graphs] == [3, 2]
    assert pools == [None, "memory"]


@pytest.mark.gpu
@pytest.mark.parametrize("every", [0, 2], ids=["without penalty", "with penalty and spectral norm"])
def test_a_graph_replays_the_same_gradients(
    make_config: Callable[..., TrainConfig], tmp_path: Path, every: int
) -> None:
    config = make_config(tmp_path, device="cuda")
    model: Any = replace(config.model, feature_channels=0)
    discriminator = replace(model.discriminator, spectral_norm=bool(every))
    loss = Pix2PixHDLoss(vgg=0.0, r1=1.0, r1_every=every) if every else Pix2PixHDLoss(vgg=0.0)
    config = replace(config, model=replace(model, discriminator=discriminator), loss=loss)
    state = make_state(config)
    state.model.cuda()
    criterion = Pix2PixHDCriterion(config.loss, None, state.pool, state.augmentation)
    plain = partial(forward_backward, config, state, criterion)
    graphed = GraphedGradients(plain, state)
    parameters = [*state.g_parameters, *state.d_parameters]
    for step, batch in ((0, 2), (1, 2), (2, 1), (3, 2)):  # the third has another shape
        inputs = make_inputs(batch, torch.float32, step)
        inputs = Batch(inputs.photo.cuda(), inputs.label.cuda(), None, inputs.ids.cuda())  # type: ignore[union-attr]
        penalty = criterion.penalty if every and step % every == 0 else None
        expected = plain(inputs, penalty), [p.grad.clone() for p in parameters if p.grad is not None]
        found = graphed(inputs, penalty), [p.grad.clone() for p in parameters if p.grad is not None]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        for optimizer in state.optimizers.values():
            optimizer.step()
        refine(state.model)


def make_noisy(make_config: Callable[..., TrainConfig], out: Path, **options: Any) -> TrainConfig:
    """A run of pix2pix with dropout and batch norm."""
    network, patch = UNetConfig(ngf=4, n_downs=3), PatchConfig(ndf=4, n_layers=2)
    model = Pix2PixConfig(n_labels=4, generator=network, discriminator=patch)
    stage = Pix2PixStage(size=SizeConfig(width=16), batch_size=2, images=6)
    return make_config(out, model=model, loss=Pix2PixLoss(), stages={"joint": stage}, **options)


def test_warming_up_leaves_no_trace(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_noisy(make_config, tmp_path)
    state = make_state(config)
    gradients = partial(
        forward_backward, config, state, Pix2PixCriterion(Pix2PixLoss(), state.pool, state.augmentation)
    )
    inputs = make_inputs(2, torch.float32)
    gradients(inputs)
    before, generator = copy.deepcopy(state.model.state_dict()), torch.get_rng_state()
    with without_trace(state.model, CPU):
        gradients(inputs)
        assert not torch.equal(torch.get_rng_state(), generator)
        assert state.model.state_dict()["generator.up_norms.0.num_batches_tracked"] == 2
    assert torch.equal(torch.get_rng_state(), generator)
    after = state.model.state_dict()
    assert after["generator.up_norms.0.num_batches_tracked"] == 1
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.gpu
def test_a_graph_draws_the_noise_of_its_seed(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_noisy(make_config, tmp_path, device="cuda")
    found = []
    for graphed in (False, True):
        torch.manual_seed(0)
        state = make_state(config)
        state.model.cuda()
        plain = partial(
            forward_backward, config, state, Pix2PixCriterion(Pix2PixLoss(), state.pool, state.augmentation)
        )
        gradients = GraphedGradients(plain, state) if graphed else plain
        inputs = make_inputs(2, torch.float32)
        inputs = Batch(inputs.photo.cuda(), inputs.label.cuda(), None, inputs.ids.cuda())  # type: ignore[union-attr]
        losses = []
        for seed in (1, 2, 1):  # the first captures
            torch.manual_seed(seed)
            losses += [gradients(inputs), gradients(inputs)]
        found.append((torch.stack(losses), dict(state.model.named_buffers())))
    (expected, statistics), (ours, our_statistics) = found
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    assert our_statistics["generator.up_norms.0.num_batches_tracked"] == 6
    torch.testing.assert_close(our_statistics, statistics, rtol=1e-3, atol=1e-4)
    once, again, other = ours[0], ours[1], ours[2]
    torch.testing.assert_close(ours[4], once, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(again, once, rtol=1e-2)
    assert not torch.allclose(other, once, rtol=1e-2)
