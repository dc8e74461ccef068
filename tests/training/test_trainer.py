"""The step against the original's order of operations, which is written out here a second time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hdgan.errors import DataError, TrainingError
from hdgan.families import Pix2PixHD, Pix2PixHDLoss
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.pool import FakePool
from hdgan.families.pix2pixhd.losses import Pix2PixHDCriterion
from hdgan.sharding.world import World
from hdgan.training import OptimConfig, TrainConfig
from hdgan.training.schedule import plan
from hdgan.training.state import StageState
from hdgan.training.trainer import StepResult, Trainer, accumulate_gradients, forward_backward

CPU = torch.device("cpu")


class TinyVGG(nn.Module):
    """Five feature maps of random convolutions, in place of VGG19's."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(5))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = F.relu(conv(x))
            features.append(x)
        return features


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let losses, which are taken in float32, be taken in float64.

    Adam divides a gradient by its own size: where the true gradient is zero, rounding noise becomes whole steps. Two
    orders of the same operations can therefore be compared over several steps only where noise is far below gradients.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def make_inputs(batch: int, dtype: torch.dtype, step: int = 0, n_labels: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(step)
    label = torch.randint(n_labels, (batch, 4, 8), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    ids = label * 1000 + torch.randint(3, (batch, 2, 4), generator=generator).repeat_interleave(8, 1).repeat_interleave(
        8, 2
    )
    photo = torch.rand(batch, 3, 16, 32, generator=generator, dtype=torch.float64) * 2 - 1
    return Batch(photo.to(dtype), label, None, ids)


def make_state(
    config: TrainConfig, stage: str = "joint", dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> StageState:
    state = StageState(config, next(s for s in plan(config, 6) if s.name == stage), device)
    state.model.to(dtype)
    state.ema.model.to(dtype)
    for parameter in state.model.parameters():
        # Of the size that trained weights have, so that all terms and layers matter.
        parameter.data.mul_(5)
    return state


def steady(config: TrainConfig, micro_batch: int | None = None) -> TrainConfig:
    """With a last stage that is long and keeps the original's learning rate."""
    joint = replace(config.stages["joint"], images=100, decay=0.0, lr=2e-4, micro_batch=micro_batch)
    return replace(config, stages=config.stages | {"joint": joint})


def make_trainer(config: TrainConfig, state: StageState, vgg: nn.Module | None = None) -> Trainer:
    return Trainer(config, state, vgg, World(0, 1, next(state.model.parameters()).device))


def moved(inputs: Batch, device: torch.device) -> Batch:
    tensors = (inputs.photo, inputs.label, inputs.source, inputs.ids)
    return Batch(*(None if tensor is None else tensor.to(device) for tensor in tensors))  # type: ignore[arg-type]


def original_losses(model: Pix2PixHD, inputs: Batch, config: Pix2PixHDLoss, vgg: nn.Module | None) -> dict[str, Tensor]:
    """Pix2PixHDModel.forward of NVIDIA/pix2pixHD: D runs three times, on fake.detach(), real and fake."""
    condition = model.condition(inputs.label, inputs.ids).dense(inputs.photo.dtype)  # type: ignore[union-attr]
    netG, netD, netE = model.generator, model.discriminator, model.encoder
    fake = netG(condition if netE is None else torch.cat([condition, netE(inputs.photo, inputs.ids)], dim=1))

    def criterion_gan(prediction: list[list[Tensor]], target: float) -> Tensor:
        total = torch.zeros((), dtype=fake.dtype)
        for scale in prediction:
            wanted = torch.full_like(scale[-1], target)
            loss = F.mse_loss if config.gan == "lsgan" else F.binary_cross_entropy_with_logits
            total = total + loss(scale[-1], wanted)
        return total

    pred_fake_pool = netD(torch.cat([condition, fake.detach()], dim=1))
    loss_d_fake = criterion_gan(pred_fake_pool, 0.0)
    pred_real = netD(torch.cat([condition, inputs.photo.detach()], dim=1))
    loss_d_real = criterion_gan(pred_real, 1.0)
    pred_fake = netD(torch.cat([condition, fake], dim=1))
    loss_g_gan = criterion_gan(pred_fake, 1.0)
    loss_g_feat = torch.zeros((), dtype=fake.dtype)
    feat_weights, d_weights = 4.0 / (len(pred_fake[0]) - 1), 1.0 / len(pred_fake)
    for i in range(len(pred_fake)):
        for j in range(len(pred_fake[i]) - 1):
            distance = F.l1_loss(pred_fake[i][j], pred_real[i][j].detach())
            loss_g_feat = loss_g_feat + d_weights * feat_weights * distance * config.feature_matching
    loss_g_vgg = torch.zeros((), dtype=fake.dtype)
    if vgg is not None:
        for weight, x, y in zip([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1], vgg(fake), vgg(inputs.photo), strict=True):
            loss_g_vgg = loss_g_vgg + weight * F.l1_loss(x, y.detach()) * config.vgg
    return {
        "g_gan": loss_g_gan,
        "g_feature_matching": loss_g_feat,
        "g_vgg": loss_g_vgg,
        "d_real": loss_d_real,
        "d_fake": loss_d_fake,
    }


class Original:
    """train.py of NVIDIA/pix2pixHD: G's backward and step, then D's."""

    def __init__(self, state: StageState, config: Pix2PixHDLoss, vgg: nn.Module | None) -> None:
        self.model, self.config, self.vgg = copy.deepcopy(state.model).requires_grad_(True), config, vgg
        trained = [p for n, p in self.model.named_parameters() if not n.startswith("discriminator.")]
        self.optimizer_g = torch.optim.Adam(trained, lr=2e-4, betas=(0.5, 0.999))
        self.optimizer_d = torch.optim.Adam(self.model.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(self, inputs: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        losses = original_losses(self.model, inputs, self.config, self.vgg)
        loss_d = (losses["d_fake"] + losses["d_real"]) * 0.5
        loss_g = losses["g_gan"] + losses["g_feature_matching"] + losses["g_vgg"]
        self.optimizer_g.zero_grad()
        loss_g.backward()
        gradients = _gradients(self.model, "generator", "encoder")
        self.optimizer_g.step()
        self.optimizer_d.zero_grad()
        loss_d.backward()
        gradients |= _gradients(self.model, "discriminator")
        self.optimizer_d.step()
        return {name: loss.detach() for name, loss in losses.items()}, gradients


def take_step(trainer: Trainer, inputs: Batch) -> StepResult:
    """Take a step, and wait for its losses."""
    results: list[StepResult] = []
    trainer.on_result = results.append
    trainer.train_step(inputs)
    trainer.finish()
    return results[-1]


def our_step(trainer: Trainer, inputs: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
    losses = take_step(trainer, inputs).losses
    return losses, _gradients(trainer.state.model, "generator", "encoder", "discriminator")


def _gradients(model: Pix2PixHD, *networks: str) -> dict[str, Tensor]:
    named = model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None and name.split(".")[0] in networks}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Gradients agree relative to the largest of their tensor."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        difference = (ours[name] - gradient).abs().max()
        assert difference <= tolerance * gradient.abs().max().clamp(min=1e-6), name


CASES: dict[str, dict[str, Any]] = {
    "lsgan": {},
    "vanilla": {"gan": "vanilla"},
    "no feature matching": {"feature_matching": 0.0},
    "vgg": {"vgg": 10.0},
    "vanilla, vgg, no feature matching": {"gan": "vanilla", "feature_matching": 0.0, "vgg": 3.0},
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def losses(request: pytest.FixtureRequest) -> Pix2PixHDLoss:
    return Pix2PixHDLoss(**({"vgg": 0.0} | request.param))


def _pair(config: TrainConfig, losses: Pix2PixHDLoss, dtype: torch.dtype) -> tuple[Trainer, Original]:
    config = steady(replace(config, loss=losses))
    vgg = TinyVGG().to(dtype).requires_grad_(False) if losses.vgg else None
    state = make_state(config, dtype=dtype)
    return make_trainer(config, state, vgg), Original(state, losses, vgg)


@pytest.mark.parametrize("features", [0, 2], ids=["without E", "with E"])
def test_four_steps_equal_the_originals(
    make_config: Callable[..., TrainConfig], tmp_path: Path, losses: Pix2PixHDLoss, features: int, in_double: None
) -> None:
    config = make_config(tmp_path)
    config = replace(config, model=replace(config.model, feature_channels=features))
    trainer, original = _pair(config, losses, torch.float64)
    for step in range(4):
        inputs = make_inputs(2, torch.float64, step)
        expected, wanted = original.step(inputs)
        found, gradients = our_step(trainer, inputs)
        assert found == pytest.approx({name: float(expected[name]) for name in found}, rel=1e-10, abs=1e-10)
        assert_same(gradients, wanted, 1e-9)
    theirs = original.model.state_dict()
    for name, weight in trainer.state.model.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


def test_losses_equal_the_originals_in_float32(
    make_config: Callable[..., TrainConfig], tmp_path: Path, losses: Pix2PixHDLoss
) -> None:
    """Gradients are compared in float64 above: in float32 the order of additions alone moves some by 1e-5."""
    trainer, original = _pair(make_config(tmp_path), losses, torch.float32)
    for step in range(4):
        inputs = make_inputs(2, torch.float32, step)
        # The same weights at each step: see in_double.
        original.model.load_state_dict(trainer.state.model.state_dict())
        expected, _ = original.step(inputs)
        found, _ = our_step(trainer, inputs)
        assert list(found) == [name for name in expected if name in found]
        assert found == pytest.approx({name: float(expected[name]) for name in found}, rel=1e-5, abs=1e-5)


def test_each_objective_reaches_its_own_network_alone(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    state = make_state(make_config(tmp_path))
    criterion = Pix2PixHDCriterion(Pix2PixHDLoss(vgg=0.0), None, state.pool, state.augmentation)
    for silent in ("generator", "discriminator"):
        objectives = criterion(state.model, make_inputs(2, torch.float32))
        objectives = replace(objectives, **{silent: getattr(objectives, silent) * 0})
        state.model.zero_grad(set_to_none=True)
        accumulate_gradients(objectives, state.g_parameters, state.d_parameters, 1)
        loud = {name for name, gradient in _gradients(state.model, "generator", "encoder", "discriminator").items()
                if gradient.abs().max() > 0}  # fmt: skip
        assert loud
        assert all(name.startswith("discriminator") == (silent == "generator") for name in loud)


def test_micro_batches_equal_the_whole_batch(
    make_config: Callable[..., TrainConfig], tmp_path: Path, in_double: None
) -> None:
    config, divided = (steady(make_config(tmp_path), micro_batch) for micro_batch in (None, 1))
    whole = make_trainer(config, make_state(config, dtype=torch.float64))
    parts = make_trainer(divided, make_state(divided, dtype=torch.float64))
    for step in range(2):
        inputs = make_inputs(4, torch.float64, step)
        expected, found = our_step(whole, inputs), our_step(parts, inputs)
        assert found[0] == pytest.approx(expected[0], rel=1e-10, abs=1e-10)
        assert_same(found[1], expected[1], 1e-9)


def test_a_step_takes_the_learning_rate_of_the_schedule(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    state = make_state(config)
    trainer = make_trainer(config, state)
    for step in range(state.stage.steps):
        result = take_step(trainer, make_inputs(2, torch.float32, step))
        assert result.step == state.step
        assert result.learning_rates == {"lr": state.stage.learning_rate(step)}
        rates = {group["lr"] for optimizer in state.optimizers.values() for group in optimizer.param_groups}
        assert rates == set(result.learning_rates.values())
    assert state.step == state.stage.last_step


def with_penalty(config: TrainConfig, every: int = 2) -> TrainConfig:
    return replace(config, loss=Pix2PixHDLoss(vgg=0.0, r1=3.0, r1_every=every))


def test_a_due_step_adds_the_penalty_to_ds_gradients_alone(
    make_config: Callable[..., TrainConfig], tmp_path: Path, in_double: None
) -> None:
    config = steady(with_penalty(make_config(tmp_path)))
    state = make_state(config, dtype=torch.float64)
    criterion = config.loss.criterion(None, state.pool, state.augmentation)
    inputs = make_inputs(2, torch.float64)
    assert criterion.penalty is not None
    penalty = criterion.penalty(state.model, inputs)
    wanted = torch.autograd.grad(penalty, state.d_parameters, allow_unused=True)
    losses = forward_backward(config, state, criterion, inputs)
    plain = _gradients(state.model, "generator", "encoder", "discriminator")
    with_it = forward_backward(config, state, criterion, inputs, criterion.penalty)
    torch.testing.assert_close(with_it, torch.cat([losses, penalty.detach()[None]]))
    names = {id(p): name for name, p in state.model.named_parameters()}
    expected = dict(plain)
    for parameter, gradient in zip(state.d_parameters, wanted, strict=True):
        if gradient is not None:
            expected[names[id(parameter)]] = plain[names[id(parameter)]] + 3.0 / 2 * 2 * gradient
    assert_same(_gradients(state.model, "generator", "encoder", "discriminator"), expected, 1e-9)
    assert sum(not torch.equal(expected[name], gradient) for name, gradient in plain.items()) > 4


def test_micro_batches_share_the_penalty(
    make_config: Callable[..., TrainConfig], tmp_path: Path, in_double: None
) -> None:
    config, divided = (steady(with_penalty(make_config(tmp_path), 1), micro_batch) for micro_batch in (None, 1))
    whole = make_trainer(config, make_state(config, dtype=torch.float64))
    parts = make_trainer(divided, make_state(divided, dtype=torch.float64))
    for step in range(2):
        inputs = make_inputs(4, torch.float64, step)
        expected, found = our_step(whole, inputs), our_step(parts, inputs)
        assert list(expected[0])[-1] == "d_r1"
        assert found[0] == pytest.approx(expected[0], rel=1e-10, abs=1e-10)
        assert_same(found[1], expected[1], 1e-9)


def test_steps_between_penalties_are_as_without_and_log_the_last_one(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config, inputs = with_penalty(make_config(tmp_path)), [make_inputs(2, torch.float32, step) for step in range(3)]
    trainer = make_trainer(config, make_state(config))
    results = []
    for k, batch in enumerate(inputs):
        before = copy.deepcopy(trainer.state.model.state_dict())
        results.append(our_step(trainer, batch))
        without = make_trainer(replace(config, loss=Pix2PixHDLoss(vgg=0.0)), make_state(config))
        without.state.model.load_state_dict(before)
        without.state.step = trainer.state.step - 1
        losses, gradients = our_step(without, batch)
        assert all(results[-1][0][name] == loss for name, loss in losses.items())
        same = all(torch.equal(gradient, results[-1][1][name]) for name, gradient in gradients.items())
        assert same == (k == 1)
    first, second, third = (losses["d_r1"] for losses, _ in results)
    assert first == second != third


def test_a_penalty_that_is_not_finite_stops_the_step(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_penalty(make_config(tmp_path))
    state = make_state(config)
    before = copy.deepcopy(state.model.state_dict())
    nan = torch.full((), float("nan"), requires_grad=True)
    monkeypatch.setattr("hdgan.families.common.penalty.r1_penalty", lambda *_: nan * 1)
    with pytest.raises(TrainingError, match="step 7 of stage joint: d_r1 is nan"):
        take_step(make_trainer(config, state), make_inputs(2, torch.float32))
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_d_may_have_a_rate_of_its_own(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_config(tmp_path)
    joint = replace(config.stages["joint"], lr=1e-4, lr_d=4e-4, warmup=0.4)
    config = replace(config, stages=config.stages | {"joint": joint})
    state = make_state(config)
    trainer = make_trainer(config, state)
    for step in range(state.stage.steps):
        rates = {"g": state.stage.learning_rate(step), "d": state.stage.learning_rate(step, "d")}
        assert rates["d"] == pytest.approx(4 * rates["g"])
        result = take_step(trainer, make_inputs(2, torch.float32, step))
        assert result.learning_rates == {"lr": rates["g"], "lr_d": rates["d"]}
        assert {name: o.param_groups[0]["lr"] for name, o in state.optimizers.items()} == rates


def test_an_update_refines_the_spectral_norms_of_what_trains(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """G1 stays fixed while the enhancer trains, and its estimates with it. The average has the estimates of G."""
    config = make_config(tmp_path)
    model: Any = config.model
    generator, discriminator = (replace(part, spectral_norm=True) for part in (model.generator, model.discriminator))
    config = replace(config, model=replace(model, generator=generator, discriminator=discriminator))
    state = StageState(config, next(s for s in plan(config, 6) if s.name == "enhancer"), CPU)
    before = {name: value.clone() for name, value in state.model.named_buffers()}
    assert before
    take_step(make_trainer(config, state), make_inputs(2, torch.float32))
    changed = {name for name, value in state.model.named_buffers() if not torch.equal(value, before[name])}
    # The left vector of D's last convolutions, which have one output channel, is one number.
    assert {name for name in before.keys() - changed if name.endswith("_v")} == {
        name for name in before if name.startswith("generator.coarse.") and name.endswith("_v")
    }
    assert not any(name.startswith("generator.coarse.") for name in changed)
    average = dict(state.ema.model.named_buffers())
    assert average.keys() == {name for name in before if not name.startswith("discriminator.")}
    assert all(torch.equal(value, state.model.get_buffer(name)) for name, value in average.items())


def test_a_step_without_a_batch_changes_nothing(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make_config(tmp_path)
    state = make_state(config)
    trainer = make_trainer(config, state)
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(DataError, match="no batch"):
        trainer.train_step(DataError("no batch"))
    assert (state.step_in_stage, trainer.updating, trainer.all_failed) == (0, False, True)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_inputs_split_into_micro_batches_in_order() -> None:
    inputs = make_inputs(4, torch.float32)
    halves = list(inputs.split(2))
    assert [len(half.photo) for half in halves] == [2, 2]
    assert torch.equal(torch.cat([half.photo for half in halves]), inputs.photo)
    assert torch.equal(torch.cat([half.ids for half in halves]), inputs.ids)  # type: ignore[misc]
    assert halves[0].source is None
    assert len(list(inputs.split(None))) == 1


@pytest.mark.parametrize("size", [None, 2])
def test_instances_can_be_found_in_advance(size: int | None) -> None:
    inputs = make_inputs(4, torch.float32)
    indexed = inputs.indexed(size)
    assert len(list(indexed.tensors())) == 3 + 4 * (4 // (size or 4))
    for part, plain in zip(indexed.split(size), inputs.split(size), strict=True):
        assert part.instances() is part.instances()
        for found, expected in zip(part.instances(), plain.instances(), strict=True):
            assert torch.equal(found, expected)
        assert part.label is not None
        assert torch.equal(part.label, plain.label)  # type: ignore[arg-type]


def test_inputs_from_the_loader_bring_8_bits_to_unit_range() -> None:
    photo = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    inputs = Batch.from_loader(
        {"photo": photo, "label": torch.zeros(1, 16, 16, dtype=torch.uint8)}, CPU, torch.channels_last
    )
    assert inputs.photo.dtype == torch.float32
    assert (inputs.photo.min(), inputs.photo.max()) == (-1, 1)
    assert inputs.photo.is_contiguous(memory_format=torch.channels_last)
    assert inputs.ids is None


def test_features_fall_back_on_labels_where_there_are_no_instances() -> None:
    inputs = replace(make_inputs(1, torch.float32), ids=None)
    assert inputs.label is not None
    assert sorted(inputs.instances().ids.tolist()) == sorted(inputs.label.unique().tolist())


def test_the_pool_feeds_only_the_discriminators_fakes(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = replace(make_config(tmp_path), optim=OptimConfig(pool_size=1))
    state = make_state(config)
    plain = Pix2PixHDCriterion(Pix2PixHDLoss(vgg=0.0), None, FakePool(0), Augmentation())
    pooled = Pix2PixHDCriterion(Pix2PixHDLoss(vgg=0.0), None, state.pool, state.augmentation)
    first, second = make_inputs(1, torch.float32, 1), make_inputs(1, torch.float32, 2)
    torch.testing.assert_close(pooled(state.model, first).parts, plain(state.model, first).parts)
    torch.manual_seed(1)  # draws more than 0.5: the old image comes back
    expected, found = plain(state.model, second).parts, pooled(state.model, second).parts
    assert pooled.names[-1] == "d_fake"
    torch.testing.assert_close(found[:-1], expected[:-1])
    torch.testing.assert_close(found[-1], plain(state.model, first).parts[-1])
    assert not torch.allclose(found[-1], expected[-1])


class Conversions(TorchDispatchMode):
    """Counts the bytes that are converted from float32 to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and (args[0].dtype, result.dtype) == (torch.float32, torch.bfloat16):
            self.bytes += args[0].nbytes
        return result


def test_frozen_weights_are_converted_once(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Not a bit changes, but each call of the perceptual network converts its weights no more."""
    config = replace(make_config(tmp_path, precision="bfloat16"), loss=Pix2PixHDLoss(vgg=10.0))
    vgg = TinyVGG().requires_grad_(False)
    inputs = make_inputs(2, torch.float32)
    found = []
    for network in (vgg, copy.deepcopy(vgg)):
        state = make_state(config)
        trainer = make_trainer(config, state, copy.deepcopy(vgg))
        if network is vgg:  # as it was
            trainer.criterion = config.loss.criterion(network, state.pool, state.augmentation)
        with Conversions() as conversions:
            losses = forward_backward(config, state, trainer.criterion, inputs)
        found.append((losses, [p.grad for p in state.g_parameters], conversions.bytes))
    (expected, gradients, before), (losses, ours, after) = found
    assert torch.equal(losses, expected)
    assert len(ours) > 10
    for mine, theirs in zip(ours, gradients, strict=True):
        assert (mine is None and theirs is None) or torch.equal(mine, theirs)  # type: ignore[arg-type]
    assert after <= before - 2 * sum(p.nbytes for p in vgg.parameters())  # of the fake and of the photo


def test_accumulation_frees_each_micro_batch(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = replace(steady(make_config(tmp_path), micro_batch=1), recompute=False)
    state = make_state(config)
    criterion = Pix2PixHDCriterion(Pix2PixHDLoss(vgg=0.0), None, FakePool(0), Augmentation())
    alive, most = 0, 0

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal alive, most
            self.tensor, self.size = tensor.detach(), tensor.nbytes
            alive += self.size
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.size

    def peak(rounds: int) -> int:
        nonlocal most
        most = 0
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            forward_backward(config, state, criterion, make_inputs(rounds, torch.float32))
        assert alive == 0
        return most

    assert peak(3) == peak(1)
