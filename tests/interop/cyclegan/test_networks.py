from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hdgan.errors import CheckpointError
from hdgan.families.pix2pix.model import patch_gan
from hdgan.interop import nvidia
from hdgan.interop.cyclegan import layer_names, load_discriminator, load_generator, to_state_dict
from hdgan.interop.cyclegan.networks import is_theirs
from hdgan.models import GlobalGenerator, MultiscaleDiscriminator, ResNetGenerator, UNetGenerator

GOLDEN = Path(__file__).with_name("cyclegan_unet.npz")
"""Made with UnetGenerator(3, 3, num_downs=5, ngf=1) of pytorch-CycleGAN-and-pix2pix and batch norm, in training:
random weights (w:), an input, its output, gradients of sum(y * gy) (g:), and the running statistics after it (b:)."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def of_kind(golden, kind):
    return {key[2:]: value for key, value in golden.items() if key.startswith(f"{kind}:")}


def distance(found, expected):
    """Largest error relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_output_gradients_and_statistics_equal_the_original(golden):
    network = load_generator(of_kind(golden, "w"))
    x = golden["x"].float().requires_grad_()
    y = network(x)
    (y * golden["gy"].float()).sum().backward()
    assert distance(y, golden["y"]) < 1e-5
    assert distance(x.grad, golden["gx"]) < 1e-5
    parameters, names, gradients = dict(network.named_parameters()), layer_names(network), of_kind(golden, "g")
    for key, expected in gradients.items():
        layer, _, kind = key.rpartition(".")
        assert distance(parameters[f"{names[layer]}.{kind}"].grad, expected) < 1e-4, key
    assert len(gradients) == 22
    after = to_state_dict(network)
    statistics = of_kind(golden, "b")
    assert len(statistics) == 14
    assert all(distance(after[key], expected) < 1e-5 for key, expected in statistics.items())


def test_golden_round_trip(golden):
    weights = of_kind(golden, "w")
    back = to_state_dict(load_generator(weights))
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], weights[key]) and back[key].dtype == weights[key].dtype for key in weights)


class Level(nn.Module):
    """What the original calls a skip connection block."""

    def __init__(self, *layers, skip=True):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x):
        return torch.cat([x, self.model(x)], dim=1) if self.skip else self.model(x)


class Nested(nn.Module):
    """The U-Net in the original's nesting, by hand."""

    def __init__(self, in_channels, out_channels, n_downs, ngf, norm, dropout):
        super().__init__()
        make = nn.BatchNorm2d if norm == "batch" else nn.InstanceNorm2d
        widths = [ngf * min(2**i, 8) for i in range(n_downs)]
        options = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": norm == "instance"}
        module = None
        for i in reversed(range(1, n_downs)):
            outer, inner, innermost = widths[i - 1], widths[i], module is None
            down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, **options)] + [make(inner)] * (not innermost)
            up = [nn.ReLU(), nn.ConvTranspose2d(inner * (2 - innermost), outer, **options), make(outer)]
            noise = [nn.Dropout(0.5)] * (dropout and not innermost and i > 3)
            module = Level(*down, *[module] * (not innermost), *up, *noise)
        first = nn.Conv2d(in_channels, ngf, **options)
        last = nn.ConvTranspose2d(2 * ngf, out_channels, 4, 2, 1)
        self.model = Level(first, module, nn.ReLU(), last, nn.Tanh(), skip=False)

    def forward(self, x):
        return self.model(x)


def run(network, x):
    """Output and gradient of the input for dropout of one seed."""
    torch.manual_seed(3)
    x = x.clone().requires_grad_()
    y = network(x)
    (y * x.detach().sin()[:, : y.shape[1]]).sum().backward()
    return y.detach(), x.grad


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("n_downs", [5, 7, 8])
def test_unets_load_strictly_and_compute_the_same(n_downs, norm, dropout, prefix):
    plain = Nested(4, 3, n_downs, 2, norm, dropout).double()
    network = load_generator({prefix + key: t for key, t in plain.state_dict().items()}, dropout=dropout).double()
    assert (network.norm, len(network.downs)) == (norm, n_downs)
    assert network.dropout_levels == (tuple(range(1, n_downs - 4)) if dropout else ())
    x = torch.randn(2, 4, 2**n_downs, 2**n_downs, dtype=torch.float64)
    for found, expected in zip(run(network, x), run(plain, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    plain.load_state_dict(to_state_dict(network))
    assert list(to_state_dict(network)) == list(plain.state_dict())


def small(norm="batch"):
    return Nested(3, 3, 5, 1, norm, True).state_dict()


def test_half_precision_becomes_float32_and_memory_is_owned():
    state = {key: value.half() if value.is_floating_point() else value for key, value in small().items()}
    network = load_generator(state)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    before = state["model.model.0.weight"].clone()
    with torch.no_grad():
        network.downs[0].weight.zero_()
    assert torch.equal(state["model.model.0.weight"], before)


def test_files_without_count_of_batches_load():
    old = {key: value for key, value in small().items() if not key.endswith("num_batches_tracked")}
    counts = [value for key, value in to_state_dict(load_generator(old)).items() if key.endswith("tracked")]
    assert counts == [0] * 7


def test_running_statistics_of_old_instance_norms_are_dropped():
    old = small("instance") | {"model.model.1.model.2.running_mean": torch.zeros(2)}
    assert load_generator(old).norm == "instance"


class Added(nn.Module):
    """What the original calls a ResNet block."""

    def __init__(self, *layers):
        super().__init__()
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class Sequential(nn.Module):
    """The ResNet generator in the original's positions, by hand."""

    def __init__(self, channels, ngf, n_blocks, norm, dropout):
        super().__init__()
        make, bias = {"batch": (nn.BatchNorm2d, False), "instance": (nn.InstanceNorm2d, True)}[norm]

        def block():
            first = [nn.ReflectionPad2d(1), nn.Conv2d(4 * ngf, 4 * ngf, 3, bias=bias), make(4 * ngf), nn.ReLU()]
            return Added(
                *first,
                *[nn.Dropout(0.5)] * dropout,
                *first[:1],
                nn.Conv2d(4 * ngf, 4 * ngf, 3, bias=bias),
                make(4 * ngf),
            )

        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, ngf, 7, bias=bias), make(ngf), nn.ReLU()]
        for wide in (ngf, 2 * ngf):
            layers += [nn.Conv2d(wide, 2 * wide, 3, 2, 1, bias=bias), make(2 * wide), nn.ReLU()]
        layers += [block() for _ in range(n_blocks)]
        for wide in (2 * ngf, ngf):
            layers += [nn.ConvTranspose2d(2 * wide, wide, 3, 2, 1, 1, bias=bias), make(wide), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("n_blocks", [6, 9])
def test_resnets_load_strictly_and_compute_the_same(n_blocks, norm, dropout, prefix):
    plain = Sequential(4, 2, n_blocks, norm, dropout).double()
    network = load_generator({prefix + key: t for key, t in plain.state_dict().items()}).double()
    assert (network.norm, len(network.blocks), network.dropout) == (norm, n_blocks, dropout)
    x = torch.randn(2, 4, 24, 16, dtype=torch.float64)
    for found, expected in zip(run(network, x), run(plain, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    plain.load_state_dict(to_state_dict(network))
    assert list(to_state_dict(network)) == list(plain.state_dict())


def test_a_resnet_without_noise_is_the_global_generator():
    network = ResNetGenerator(3, 3, 2, 6, "instance", dropout=False)
    same = nvidia.load_network(to_state_dict(network))
    x = torch.randn(1, 3, 16, 20)
    torch.testing.assert_close(network(x), same(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("n_layers", [1, 3, 4])
def test_discriminators(norm, n_layers):
    network = patch_gan(6, 4, n_layers, norm)
    state = to_state_dict(network)
    convs = [0, *range(2, 3 * n_layers, 3), 3 * n_layers + 2]
    assert [key for key in state if state[key].dim() == 4] == [f"model.{at}.weight" for at in convs]
    loaded = load_discriminator({f"module.{key}": value for key, value in state.items()})
    x = torch.randn(2, 6, 80, 64)
    assert torch.equal(loaded(x)[0][0], network(x)[0][0])
    assert len(loaded.scales[0].convs) == n_layers + 2


def resnet():
    return Sequential(3, 2, 2, "batch", True).state_dict()


def of_nvidia(n_downs=2):
    """A generator that NVIDIA's code trains with --norm batch: all its convolutions have biases."""
    state = nvidia.to_state_dict(GlobalGenerator(3, 3, 2, n_downs, 2))
    convs = [key.removesuffix(".weight") for key in state if key.endswith(".weight")][:-1]
    for conv in convs:
        start, _, at = conv.rpartition(".")
        names = ("weight", "bias", "running_mean", "running_var")
        state |= {f"{start}.{int(at) + 1}.{name}": torch.ones_like(state[f"{conv}.bias"]) for name in names}
    return state


@pytest.mark.parametrize("n_downs", [2, 4])
def test_batch_norms_of_nvidia_are_not_theirs(n_downs):
    assert not is_theirs(of_nvidia(n_downs), "G.pth")
    with pytest.raises(CheckpointError, match=r"^G\.pth has batch norms after convolutions with biases, as NVIDIA"):
        load_generator(of_nvidia(n_downs), where="G.pth")
    with pytest.raises(CheckpointError, match=r"^G\.pth was trained with batch norms \(--norm batch\)"):
        nvidia.load_network(of_nvidia(n_downs), where="G.pth")
    assert is_theirs(Sequential(3, 2, 2, "batch", False).state_dict(), "G.pth")
    assert is_theirs(Sequential(3, 2, 2, "instance", True).state_dict(), "G.pth")


def without(key):
    return {name: value for name, value in small().items() if name != key}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {k: v for k, v in resnet().items() if k != "model.10.conv_block.6.weight"},
            "do not fit any ResNet generator .* missing",
        ),
        (nvidia.to_state_dict(GlobalGenerator(3, 3, 2, 3, 2)), "do not fit any ResNet generator"),
        (
            {"model.1.weight": torch.ones(2, 3, 7, 7), "model.999999999.conv_block.1.weight": torch.ones(1)},
            "do not fit any",
        ),
        (without("model.model.0.weight"), "first convolution, is missing"),
        (without("model.model.3.bias"), "1 missing: model.model.3.bias"),
        (without("model.model.1.model.2.weight"), "1 missing: model.model.1.model.2.weight"),
        (small() | {"model.model.9.weight": torch.ones(1)}, "1 not part of the architecture: model.model.9.weight"),
        (small() | {"model.model.3.weight": torch.ones(2, 3, 3, 3)}, r"\(2, 3, 3, 3\) instead of \(2, 3, 4, 4\)"),
        (
            small() | {"model.model." + "1.model." + "3.model." * 900 + "1.weight": torch.ones(1)},
            "do not fit any U-Net",
        ),
        ({}, "model.1.weight, the first convolution, is missing"),
    ],
)
def test_bad_generators(state, says):
    with pytest.raises(CheckpointError, match=says):
        load_generator(state)


@pytest.mark.parametrize(
    ("state", "says"), [(small(), "model.0.weight, the first convolution, is missing"), (resnet(), "model.0.weight")]
)
def test_bad_discriminators(state, says):
    with pytest.raises(CheckpointError, match=rf"^some/file\.pth.*{says}"):
        load_discriminator(state, where="some/file.pth")


@pytest.mark.parametrize(("ndf", "n_layers"), [(128, 3), (32, 5), (2, 1)])
def test_a_discriminator_is_at_most_eight_times_as_wide_as_its_first_convolution(ndf, n_layers):
    network = patch_gan(6, ndf, n_layers, "batch")
    widths = [ndf * min(2**i, 8) for i in range(n_layers + 1)]  # theirs: nf_mult = min(2**n, 8)
    state = to_state_dict(network)
    assert [value.shape[0] for value in state.values() if value.dim() == 4] == [*widths, 1]
    loaded = load_discriminator(state).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (UNetGenerator(3, 3, 2, 4), "5 levels or more, but this one has 4"),
        (MultiscaleDiscriminator(3, 2, 2, 2, norm="batch", padding=1), "one scale"),
        (MultiscaleDiscriminator(3, 2, 2, 1), "padding 1"),
    ],
)
def test_networks_without_counterpart(network, says):
    with pytest.raises(CheckpointError, match=says):
        to_state_dict(network)
