"""Spectral norm: what it divides by, when the estimate changes, and what is left when it is taken off."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hdgan.models import GlobalGenerator, LocalEnhancer, MultiscaleDiscriminator, ResNetGenerator, UNetGenerator
from hdgan.models.blocks import is_plain, recomputing
from hdgan.models.inputs import LabelInput
from hdgan.models.spectral_norm import normalised, refine, without_spectral_norm
from hdgan.ops import label_planes

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "G1": lambda: GlobalGenerator(4, ngf=4, n_downsample=1, n_blocks=1),
    "G2": lambda: LocalEnhancer(4, ngf=4, n_downsample=1, n_blocks=1, n_blocks_local=1),
    "U-Net": lambda: UNetGenerator(4, ngf=4, n_downs=2, dropout_levels=()),
    "ResNet": lambda: ResNetGenerator(4, ngf=4, n_blocks=1, dropout=False),
    "D": lambda: MultiscaleDiscriminator(4, ndf=4, n_layers=2, n_scales=2),
}


def convolutions(network: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]


def largest_singular_values(network: nn.Module) -> list[float]:
    """Of the weights as matrices with a row for each output channel."""
    found = []
    for conv in convolutions(network):
        weight = conv.weight.detach()
        rows = weight.transpose(0, 1) if isinstance(conv, nn.ConvTranspose2d) else weight
        found.append(float(torch.linalg.matrix_norm(rows.flatten(1).double(), 2)))
    return found


def outputs_of(network: nn.Module, x: Tensor | LabelInput) -> list[Tensor]:
    result = network(x)
    return [result] if isinstance(result, Tensor) else [feature for scale in result for feature in scale]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_weights_get_a_largest_singular_value_of_one(name: str) -> None:
    torch.manual_seed(0)
    network = normalised(NETWORKS[name]())
    for _ in range(100):
        refine(network)
    assert largest_singular_values(network) == pytest.approx([1.0] * len(convolutions(network)), rel=1e-3)


def test_nothing_is_done_unless_enabled() -> None:
    torch.manual_seed(0)
    network, expected = normalised(NETWORKS["D"](), enabled=False), torch.get_rng_state()
    torch.manual_seed(0)
    assert network.state_dict().keys() == NETWORKS["D"]().state_dict().keys()
    assert torch.equal(torch.get_rng_state(), expected)
    assert without_spectral_norm(network) is network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_pass_changes_no_estimate(name: str) -> None:
    network = normalised(NETWORKS[name]())
    before, x = copy.deepcopy(dict(network.named_buffers())), torch.randn(1, 4, 16, 16)
    first = outputs_of(network, x)
    assert all(map(torch.equal, outputs_of(network, x), first))

    def changed() -> set[str]:
        buffers = network.named_buffers()
        return {name for name, value in buffers if name.endswith(("_u", "_v")) and not torch.equal(value, before[name])}

    assert not changed()
    refine(network)
    assert len(changed()) > len(convolutions(network))


def test_only_estimates_of_weights_that_train_are_refined() -> None:
    network = normalised(LocalEnhancer(4, ngf=4, n_downsample=1, n_blocks=1, n_blocks_local=1))
    network.coarse.requires_grad_(False)
    before = copy.deepcopy(dict(network.named_buffers()))
    refine(network)
    changed = {name.split(".")[0] for name, value in network.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {"enhancers", "head"}


@pytest.mark.parametrize("name", NETWORKS)
def test_taking_it_off_leaves_plain_convolutions_that_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = normalised(NETWORKS[name]()).double()
    plain, x = without_spectral_norm(network), torch.randn(1, 4, 16, 16, dtype=torch.float64)
    assert plain.state_dict().keys() == NETWORKS[name]().state_dict().keys()
    assert {type(conv) for conv in convolutions(plain)} <= {nn.Conv2d, nn.ConvTranspose2d}
    for ours, expected in zip(outputs_of(plain, x), outputs_of(network, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    assert len(network.state_dict()) > len(plain.state_dict())  # of a copy


@pytest.mark.parametrize("name", NETWORKS)
def test_its_convolutions_are_plain_until_somebody_puts_them_into_training_mode(name: str) -> None:
    """Label planes are looked up, dead biases left out, and activations made again, as without it."""
    torch.manual_seed(0)
    network = normalised(NETWORKS[name]())
    assert all(map(is_plain, convolutions(network)))
    assert all(map(is_plain, convolutions(copy.deepcopy(network).eval())))
    network.train()
    assert not any(map(is_plain, convolutions(network)))
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)).eval()  # a user's own
    assert not is_plain(conv)


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputation_changes_no_bit(name: str) -> None:
    torch.manual_seed(0)
    network, x, found = normalised(NETWORKS[name]()), torch.randn(1, 4, 16, 16), []
    for enabled in (False, True):
        network.zero_grad()
        with recomputing(enabled):
            outputs = outputs_of(network, x)
        sum(y.square().mean() for y in outputs).backward()  # type: ignore[union-attr]
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 4
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", ["G1", "G2", "U-Net", "ResNet"])
def test_label_planes_compute_the_same_as_the_dense_tensor(name: str) -> None:
    torch.manual_seed(0)
    network = normalised(NETWORKS[name]())
    planes = LabelInput(label_planes(torch.randint(4, (1, 16, 16)), None, 4))
    for ours, expected in zip(outputs_of(network, planes), outputs_of(network, planes.dense()), strict=True):
        torch.testing.assert_close(ours, expected)


def test_d_sees_the_same_of_condition_and_image_one_after_the_other() -> None:
    torch.manual_seed(0)
    network = normalised(MultiscaleDiscriminator(4 + 3, ndf=4, n_layers=2, n_scales=2))
    planes, image = LabelInput(label_planes(torch.randint(4, (1, 16, 16)), None, 4)), torch.randn(1, 3, 16, 16)
    ours = [feature for scale in network(image, network.context(planes)) for feature in scale]
    for found, expected in zip(ours, outputs_of(network, torch.cat([planes.dense(), image], dim=1)), strict=True):
        torch.testing.assert_close(found, expected)
