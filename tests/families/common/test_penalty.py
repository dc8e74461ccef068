"""R1: when it is due, its value and its gradients, by kernels and by plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdgan.errors import ConfigError
from hdgan.families import Pix2Pix, Pix2PixConfig, Pix2PixHD, Pix2PixHDConfig, Pix2PixHDLoss, Pix2PixLoss
from hdgan.families.common.augmentation import Augmentation
from hdgan.families.common.batch import Batch
from hdgan.families.common.penalty import R1Penalty
from hdgan.families.pix2pix.config import PatchConfig, UNetConfig
from hdgan.families.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig
from hdgan.models.blocks import recomputing
from hdgan.ops import backend

MODELS = {
    "pix2pixhd": Pix2PixHDConfig(
        n_labels=4,
        generator=GeneratorConfig(ngf=2, n_downsample=1, n_blocks=0),
        discriminator=DiscriminatorConfig(ndf=4, n_layers=2),
    ),
    "pix2pix": Pix2PixConfig(
        n_labels=4,
        norm="batch",
        generator=UNetConfig(ngf=2, n_downs=2, dropout_levels=()),
        discriminator=PatchConfig(ndf=4, n_layers=2),
    ),
}


def make_model(name: str, dtype: torch.dtype) -> Pix2PixHD | Pix2Pix:
    torch.manual_seed(0)
    config = MODELS[name]
    model = Pix2PixHD(config) if isinstance(config, Pix2PixHDConfig) else Pix2Pix(config)
    for parameter in model.parameters():
        parameter.data.mul_(5)  # of the size that trained weights have
    return model.to(dtype)


def make_batch(dtype: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(4, (2, 8, 10), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    photo = torch.rand(2, 3, 32, 40, generator=generator, dtype=torch.float64) * 2 - 1
    return Batch(photo.to(dtype).contiguous(memory_format=memory_format), label, None, label * 1000)


def value_and_gradients(model: Pix2PixHD | Pix2Pix, batch: Batch) -> list[Tensor]:
    value = R1Penalty(1.0, 1, Augmentation())(model, batch)
    value.backward()
    assert model.discriminator is not None
    return [value.detach(), *(p.grad for p in model.discriminator.parameters() if p.grad is not None)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kernels", ["cpu", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_second_derivatives_equal_those_of_plain_pytorch_in_float64(
    name: str, kernels: str, recompute: bool, memory_format: torch.memory_format
) -> None:
    with backend("eager"):
        expected = value_and_gradients(make_model(name, torch.float64), make_batch(torch.float64))
    model = make_model(name, torch.float32).to(memory_format=memory_format)  # type: ignore[call-overload]
    with backend(kernels), recomputing(recompute):
        found = value_and_gradients(model, make_batch(torch.float32, memory_format))
    assert len(found) == len(expected) > 4
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), wanted.double(), rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_the_gradient_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change of the penalty along a direction of the weights, against its finite difference."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the penalty is summed in float32
    model, batch = make_model("pix2pixhd", torch.float64), make_batch(torch.float64)
    assert model.discriminator is not None
    penalty, (first, *_) = R1Penalty(1.0, 1, Augmentation()), model.discriminator.scales[0].convs  # type: ignore[union-attr, misc]
    direction, step = torch.randn_like(first.weight), 1e-7
    (gradient,) = torch.autograd.grad(penalty(model, batch), first.weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            first.weight.add_(sign * step * direction)
        values.append(penalty(model, batch).item())
        with torch.no_grad():
            first.weight.sub_(sign * step * direction)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_a_penalty_of_every_third_step_counts_three_times() -> None:
    penalty = R1Penalty(10.0, 3, Augmentation())
    assert [penalty.due(step) for step in range(5)] == [True, False, False, True, False]
    assert penalty.weight == 10.0 / 2 * 3


@pytest.mark.parametrize("loss", [Pix2PixHDLoss, Pix2PixLoss])
def test_an_interval_without_a_penalty_is_refused(loss: type[Pix2PixHDLoss | Pix2PixLoss]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.r1_every 4 has no effect with loss\.r1 0: .* to 16, its default"):
        loss(r1_every=4)
    with pytest.raises(ConfigError, match=r"loss\.r1_every is 0"):
        loss(r1=1.0, r1_every=0)
    assert loss(r1=1.0, r1_every=4).r1_every == 4
