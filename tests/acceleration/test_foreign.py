"""Networks of other projects after `hdgan.accelerate`: the same parameters, numbers and training as before."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hdgan
from hdgan.benchmarks import foreign

TOLERANCE = 1e-4
"""Largest |found - truth| / |truth|, as norms of a whole tensor."""
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@dataclass(frozen=True, eq=False)
class Network:
    """A look-alike, what it takes, and what has to be replaced in it."""

    build: Callable[[], nn.Module]
    channels: int
    replaced: dict[str, int]
    size: tuple[int, int] = (32, 48)
    other: tuple[int, int] = (37, 29)
    instances: bool = False

    def inputs(self, size: tuple[int, int], batch: int = 2) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(batch, self.channels, *size, generator=generator)
        rows, columns = (-(-side // 8) for side in size)
        coarse = torch.randint(0, 4, (batch, 1, rows, columns), generator=generator)
        ids = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, : size[0], : size[1]]
        return [x, ids] if self.instances else [x]


NORM, RELU, LEAKY = "instance norm", "instance norm + ReLU", "instance norm + LeakyReLU"
PAD1, PAD3 = " + reflect padding 1", " + reflect padding 3"
ADD = " + residual"
OF_RESNET = {RELU: 3, RELU + PAD1: 3, NORM + ADD + PAD1: 1, NORM + ADD: 1, RELU + PAD3: 1}
"""Two downsamplings and two residual blocks, which read a padded tensor each."""
NETWORKS = {
    "pix2pixHD G1": Network(lambda: foreign.Pix2PixHDGenerator(5, 4, n_downs=2, n_blocks=2), 5, OF_RESNET),
    "pix2pixHD G2": Network(
        lambda: foreign.Pix2PixHDEnhancer(5, 4, n_levels=2, n_blocks_local=2, n_downs=1, n_blocks=2),
        5,
        {RELU: 5, RELU + PAD1: 7, NORM + ADD + PAD1: 3, NORM + ADD: 3, RELU + ADD + PAD1: 2, RELU + PAD3: 1}
        | {"average pyramid, 2 levels": 1},
        other=(40, 24),
    ),
    "pix2pixHD D, features": Network(
        lambda: foreign.Pix2PixHDDiscriminator(5, 4, n_scales=3), 5, {LEAKY: 9, "average pyramid, 2 levels": 1}
    ),
    "pix2pixHD D": Network(
        lambda: foreign.Pix2PixHDDiscriminator(5, 4, features=False, n_scales=3),
        5,
        {LEAKY: 9, "average pyramid, 2 levels": 1},
    ),
    "pix2pixHD E": Network(
        lambda: foreign.Pix2PixHDEncoder(3, 4, n_downs=2),
        3,
        {RELU: 4, RELU + PAD3: 1, "instance-wise average pooling of model": 1},
        size=(16, 24),
        other=(20, 12),
        instances=True,
    ),
    "CycleGAN G": Network(lambda: foreign.CycleGanGenerator(3, 4, n_blocks=2), 3, OF_RESNET),
    "CycleGAN G, dropout": Network(
        lambda: foreign.CycleGanGenerator(3, 4, n_blocks=2, dropout=True), 3, OF_RESNET | {RELU: 5, RELU + PAD1: 1}
    ),
    "CUT G": Network(
        lambda: foreign.CycleGanGenerator(3, 4, n_blocks=2, blur=True), 3, OF_RESNET | {RELU: 4, RELU + PAD1: 2}
    ),
    "CycleGAN U-Net": Network(lambda: foreign.CycleGanUNet(3, 4, (1, 2, 4)), 3, {NORM: 5}, other=(48, 16)),
    "CycleGAN D": Network(lambda: foreign.CycleGanDiscriminator(3, 4), 3, {LEAKY: 3}),
    "SPADE G": Network(lambda: foreign.SpadeGenerator(5, 2, latent=(3, 4), hidden=8), 5, {NORM: 18}),
    "SPADE D": Network(lambda: foreign.SpadeDiscriminator(5, 4), 5, {LEAKY: 6, "average pyramid, 2 levels": 1}),
    "MONAI D": Network(lambda: foreign.MonaiDiscriminator(3, 4), 3, {LEAKY: 3}),
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def pair(network: Network) -> tuple[nn.Module, nn.Module]:
    """The network, and an accelerated copy of it."""
    return copy.deepcopy(_pair(network))


@cache
def _pair(network: Network) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    original = network.build()
    accelerated = copy.deepcopy(original)
    hdgan.accelerate(accelerated, tuple(network.inputs(network.size)))
    return original, accelerated


def flat(output: Any) -> list[Tensor]:
    """The tensors of an image or of nested lists of features."""
    return [output] if isinstance(output, Tensor) else [tensor for part in output for tensor in flat(part)]


def run(module: nn.Module, inputs: list[Tensor], *options: Any) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """Outputs, and the gradients of the input and of the parameters."""
    torch.manual_seed(2)  # of dropout
    x = inputs[0].detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad(set_to_none=True)
    outputs = flat(module(x, *inputs[1:], *options))
    generator = torch.Generator().manual_seed(3)
    torch.autograd.backward(outputs, [torch.randn(y.shape, generator=generator) for y in outputs])
    return outputs, {"x": x.grad} | {name: parameter.grad for name, parameter in module.named_parameters()}


def difference(found: Tensor | None, truth: Tensor | None, scale: Tensor | None = None) -> float:
    """|found - truth| relative to |truth|, or to the norm of a larger tensor."""
    assert (found is None) == (truth is None)
    if found is None or truth is None:  # of a layer that did not run
        return 0.0
    assert found.shape == truth.shape
    norm = max(float(t.detach().double().norm()) for t in (truth, scale) if t is not None)
    return float((found - truth).detach().double().norm()) / norm


def largest_difference(accelerated: nn.Module, original: nn.Module, inputs: list[Tensor], options: Any) -> float:
    outputs, gradients = run(accelerated, inputs, *options)
    true_outputs, true_gradients = run(original, inputs, *options)
    differences = [difference(*outputs) for outputs in zip(outputs, true_outputs, strict=True)]
    for name, truth in true_gradients.items():
        # Before a norm, the gradient of a bias is nothing but the rounding of what adds up to that of the weight.
        layer = name.removesuffix("bias")
        weight = true_gradients.get(f"{layer}weight", true_gradients.get(f"{layer}weight_orig"))
        differences.append(difference(gradients[name], truth, weight))
    return max(differences)


def assert_same_run(accelerated: nn.Module, original: nn.Module, inputs: list[Tensor], *options: Any) -> None:
    """Compare outputs and gradients. The activation of what is zero within rounding may come out on either side of its
    kink, by chance; a fault shows in all of three tries."""
    assert any(
        largest_difference(accelerated, original, [inputs[0] + 0.01 * shift, *inputs[1:]], options) <= TOLERANCE
        for shift in range(3)
    )


@every_network
def test_everything_that_can_be_is_replaced(network: Network) -> None:
    report = hdgan.accelerate(network.build(), tuple(network.inputs(network.size)))
    assert Counter(row.what for row in report.replaced) == network.replaced


@every_network
def test_nothing_else_changes(network: Network) -> None:
    module = network.build().train()
    for child in list(module.modules())[::2]:
        child.training = False
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    objects = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    modes, rng = [child.training for child in module.modules()], torch.get_rng_state()
    hdgan.accelerate(module, tuple(network.inputs(network.size)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert [child.training for child in module.modules()] == modes
    after = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert list(after) == list(objects)
    assert all(after[name] is tensor for name, tensor in objects.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert list(module.state_dict()) == list(state)
    assert all(parameter.grad is None for parameter in module.parameters())


@every_format
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_network
def test_outputs_and_gradients_are_those_of_the_original(
    network: Network, training: bool, format: torch.memory_format
) -> None:
    if training and format == torch.channels_last and network is NETWORKS["CycleGAN G, dropout"]:
        pytest.skip("dropout draws in the order of memory, which the norm of PyTorch changes")
    original, accelerated = pair(network)
    inputs = [t.contiguous(memory_format=format) for t in network.inputs(network.size)]
    for module in (original, accelerated):
        module.train(training).to(memory_format=format)  # type: ignore[call-overload]
    assert_same_run(accelerated, original, inputs)


@every_network
def test_gradients_of_one_image_in_channels_last(network: Network) -> None:
    """On a CPU, PyTorch's own norm gives wrong ones there, so the original stays in NCHW."""
    original, accelerated = pair(network)
    accelerated.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_same_run(accelerated, original.eval(), network.inputs(network.size, batch=1))


@every_network
def test_other_sizes_and_batches(network: Network) -> None:
    original, accelerated = pair(network)
    assert_same_run(accelerated, original, network.inputs(network.other, batch=1))
    assert_same_run(accelerated, original, network.inputs(network.size, batch=3))


@every_network
def test_copies_are_independent(network: Network) -> None:
    original, accelerated = pair(network)
    copied = copy.deepcopy(accelerated)
    with torch.no_grad():
        for parameter in accelerated.parameters():
            parameter.add_(1.0)
    assert_same_run(copied, original, network.inputs(network.size))


@every_network
def test_loads_the_state_of_the_original(network: Network) -> None:
    original, accelerated = pair(network)
    torch.manual_seed(4)
    other = network.build()
    accelerated.load_state_dict(other.state_dict())
    original.load_state_dict(accelerated.state_dict())
    assert_same_run(accelerated, other, network.inputs(network.size))


@every_network
def test_training_goes_the_same_way(network: Network) -> None:
    losses = []
    for module in pair(network):
        torch.manual_seed(5)
        optimizer = torch.optim.Adam(module.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for _ in range(3):
            loss = sum((y - 1).square().mean() for y in flat(module(*network.inputs(network.size))))
            assert isinstance(loss, Tensor)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[3:] == pytest.approx(losses[:3], rel=TOLERANCE)
    assert losses[2] < losses[0]


def test_cut_gets_the_outputs_of_its_layers() -> None:
    """It iterates over its nn.Sequential and takes outputs by number, among them those of paddings and norms."""
    network = NETWORKS["CUT G"]
    original, accelerated = pair(network)
    depth = len(original.model)
    for layers, encode_only in (([0, 4, 8, 12], True), (list(range(depth)), False), ([depth - 1], True)):
        assert_same_run(accelerated, original, network.inputs(network.size), layers, encode_only)


def test_running_statistics_stay_as_they_are() -> None:
    """Older CycleGANs have them: they change in training, and are used instead of those of the image after it."""
    network = NETWORKS["CycleGAN D"]
    original = network.build()
    for number, layer in enumerate(original.model):
        if isinstance(layer, nn.InstanceNorm2d):
            original.model[number] = nn.InstanceNorm2d(layer.num_features, track_running_stats=True)
    accelerated = copy.deepcopy(original)
    report = hdgan.accelerate(accelerated, tuple(network.inputs(network.size)))
    assert not report.replaced
    assert "running" in str(report)
    for module in (original, accelerated):
        module(*network.inputs(network.size))
        module.eval()
    assert_same_run(accelerated, original, network.inputs(network.size))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_dropout_between_norm_and_activation(training: bool) -> None:
    network = Network(lambda: foreign.MonaiDiscriminator(3, 4, dropout=0.5), 3, {NORM: 3})
    test_everything_that_can_be_is_replaced(network)
    original, accelerated = pair(network)
    assert_same_run(accelerated.train(training), original.train(training), network.inputs(network.size))


def test_in_the_middle_of_training() -> None:
    """The weight under PyTorch's older spectral norm is then part of a graph, which cannot be copied."""
    network = NETWORKS["SPADE D"]
    torch.manual_seed(0)
    original, accelerated = network.build(), network.build()
    accelerated.load_state_dict(original.state_dict())
    for module in (original, accelerated):
        run(module, network.inputs(network.size))
    assert hdgan.accelerate(accelerated, tuple(network.inputs(network.size))).replaced
    assert_same_run(accelerated, original, network.inputs(network.size))
