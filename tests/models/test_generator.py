import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdgan.models import GlobalGenerator, LocalEnhancer
from hdgan.models.generator import Trunk
from hdgan.models.noise import Noise

PADS = {"reflect": nn.ReflectionPad2d, "zero": nn.ZeroPad2d, "replicate": nn.ReplicationPad2d}


class Residual(nn.Module):
    def __init__(self, block, pad):
        super().__init__()
        norm = nn.InstanceNorm2d
        channels = block.conv1.out_channels
        self.body = nn.Sequential(pad(1), block.conv1, norm(channels), nn.ReLU(), pad(1), block.conv2, norm(channels))

    def forward(self, x):
        return x + self.body(x)


class Nearest(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest")


def normalised(*layers, channels):
    return [*layers, nn.InstanceNorm2d(channels), nn.ReLU()]


def upsampled(conv, pad):
    layers = [conv] if isinstance(conv, nn.ConvTranspose2d) else [Nearest(), pad(1), conv]
    return normalised(*layers, channels=conv.out_channels)


def plain_trunk(trunk, pad):
    """A trunk's layers in the plain formulation: biases, InstanceNorm2d and pads as modules of their own."""
    layers = normalised(pad(3), trunk.stem, channels=trunk.stem.out_channels)
    for conv in trunk.downs:
        layers += normalised(conv, channels=conv.out_channels)
    layers += [Residual(block, pad) for block in trunk.blocks]
    for conv in trunk.ups:
        layers += upsampled(conv, pad)
    return layers


def plain_head(network, pad):
    return [pad(3), network.head, nn.Tanh()]


def plain_enhancer(network, x, pad):
    levels = [x]
    for _ in network.enhancers:
        levels.append(F.avg_pool2d(levels[-1], 3, 2, 1, count_include_pad=False))
    h = nn.Sequential(*plain_trunk(network.coarse, pad))(levels[-1])
    for enhancer, level in zip(network.enhancers, reversed(levels[:-1]), strict=True):
        down = normalised(pad(3), enhancer.stem, channels=enhancer.stem.out_channels)
        down += normalised(enhancer.down, channels=enhancer.down.out_channels)
        up = [Residual(block, pad) for block in enhancer.blocks] + upsampled(enhancer.up, pad)
        h = nn.Sequential(*up)(nn.Sequential(*down)(level) + h)
    return nn.Sequential(*plain_head(network, pad))(h)


def weight_gradients(network):
    return {name: p.grad for name, p in network.named_parameters() if name.endswith("weight")}


def assert_equal_forward_and_backward(network, plain, x):
    """Compare with the plain formulation in float64, weights and input; also the last bias, the only live one."""
    results = []
    for run in (network, plain):
        network.zero_grad()
        given = x.clone().requires_grad_()
        y = run(given)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        results.append([y.detach(), given.grad, network.head.bias.grad, *weight_gradients(network).values()])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pad_mode", PADS)
@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize("n_blocks", [0, 2])
def test_global_equals_plain_formulation(pad_mode, upsample, n_blocks):
    network = GlobalGenerator(4, 3, 3, 2, n_blocks, pad_mode, upsample).double()
    pad = PADS[pad_mode]
    plain = nn.Sequential(*plain_trunk(network.trunk, pad), *plain_head(network, pad))
    assert_equal_forward_and_backward(network, plain, torch.randn(2, 4, 16, 12, dtype=torch.float64))


@pytest.mark.parametrize("pad_mode", PADS)
@pytest.mark.parametrize(("n_enhancers", "n_local"), [(1, 0), (1, 2), (2, 1)])
def test_local_equals_plain_formulation(pad_mode, n_enhancers, n_local):
    upsample = "resize" if n_local == 2 else "transposed"
    network = LocalEnhancer(4, 3, 2, 2, 1, n_enhancers, n_local, pad_mode, upsample).double()
    x = torch.randn(1, 4, 32, 48, dtype=torch.float64)
    assert_equal_forward_and_backward(network, lambda x: plain_enhancer(network, x, PADS[pad_mode]), x)


NETWORKS = {
    "global": lambda: GlobalGenerator(3, 2, 4, 2, 1),
    "local": lambda: LocalEnhancer(3, 2, 2, 2, 1, 1, 1),
    "two enhancers": lambda: LocalEnhancer(3, 2, 2, 1, 1, 2, 1),
    "resize": lambda: LocalEnhancer(3, 2, 2, 1, 1, 1, 1, "zero", "resize"),
}
NOISY = {
    "global": lambda: GlobalGenerator(3, 2, 4, 2, 1, noise=0.3),
    "transposed": lambda: LocalEnhancer(3, 2, 2, 2, 1, 1, 1, noise=0.3),
    "resize": lambda: LocalEnhancer(3, 2, 2, 2, 0, 2, 0, "zero", "resize", noise=0.3),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 23), (3, 40)])
def test_any_size(name, size):
    y = NETWORKS[name]()(torch.randn(2, 3, *size))
    assert y.shape == (2, 2, *size)
    assert y.abs().max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_odd_size_is_padded_and_cropped(name):
    network = NETWORKS[name]()
    x = torch.randn(1, 3, 13, 21)
    padded = F.pad(x, (0, -21 % 8, 0, -13 % 8), mode="replicate")
    torch.testing.assert_close(network(x), network(padded)[:, :, :13, :21])


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_gives_the_same(name):
    network = NETWORKS[name]()
    x = torch.randn(2, 3, 16, 24)
    expected = network(x)
    last = torch.channels_last
    y = network.to(memory_format=last)(x.to(memory_format=last))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_autocast_trains(name):
    network = NETWORKS[name]()
    x = torch.randn(1, 3, 16, 16)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).abs().max() < 0.1
    y.float().square().mean().backward()
    assert all(gradient.isfinite().all() for gradient in weight_gradients(network).values())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_but_dead_biases_learns(name):
    network = NETWORKS[name]()
    network(torch.randn(1, 3, 16, 16)).square().mean().backward()
    without = {key for key, p in network.named_parameters() if p.grad is None}
    biases = {key for key, _ in network.named_parameters() if key.endswith("bias")}
    assert without == biases - {"head.bias"}


def test_weights_are_drawn_as_in_the_original():
    torch.manual_seed(0)
    network = LocalEnhancer(8, 3, 8, 2, 2, 1, 1)
    drawn = torch.cat([p.detach().flatten() for key, p in network.named_parameters() if key.endswith("weight")])
    assert abs(drawn.std().item() - 0.02) < 2e-4
    assert abs(drawn.mean().item()) < 2e-4


def test_growth_from_global_keeps_its_features():
    small = GlobalGenerator(3, 3, 4, 2, 1)
    grown = LocalEnhancer(3, 3, 2, 2, 1, 1, 1)
    before = grown.enhancers[0].stem.weight.clone()
    grown.copy_coarse_from(small)
    x = torch.randn(1, 3, 8, 12)
    assert torch.equal(grown.coarse(x), small.trunk(x))
    assert torch.equal(grown.enhancers[0].stem.weight, before)


def test_growth_from_local_keeps_the_coarser_enhancers():
    small, grown = LocalEnhancer(3, 3, 4, 1, 1, 1, 1), LocalEnhancer(3, 3, 2, 1, 1, 2, 1)
    grown.copy_coarse_from(small)
    x = torch.randn(1, 3, 8, 12)
    assert torch.equal(grown.coarse(x), small.coarse(x))
    first, second = small.enhancers[0].state_dict(), grown.enhancers[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert grown.enhancers[1].stem.out_channels == 2


def test_growth_of_another_width():
    with pytest.raises(RuntimeError, match="size mismatch"):
        LocalEnhancer(3, 3, 2, 2, 1).copy_coarse_from(GlobalGenerator(3, 3, 2, 2, 1))


def noises(network):
    return [module for module in network.modules() if isinstance(module, Noise)]


@pytest.mark.parametrize("name", NOISY)
def test_noise_comes_at_the_coarsest_level_and_after_each_upsampling(name):
    network = NOISY[name]()
    (trunk,) = (module for module in network.modules() if isinstance(module, Trunk))
    sides = []
    for module in noises(network):
        module.register_forward_hook(lambda _, inputs, y: sides.append(tuple(y.shape[2:])))
    network(torch.randn(1, 3, 64, 32))
    n_downs, n_enhancers = len(trunk.downs), len(getattr(network, "enhancers", ()))
    levels = [n_downs + n_enhancers, *reversed(range(n_downs + n_enhancers))]
    assert sides == [(64 >> level, 32 >> level) for level in levels]


@pytest.mark.parametrize("name", NOISY)
def test_new_noise_is_a_share_of_the_features(name):
    torch.manual_seed(0)
    shares = []
    network = NOISY[name]()
    for module in noises(network):
        module.register_forward_hook(lambda _, inputs, y: shares.append(float((y - inputs[0]).std() / inputs[0].std())))
    network(torch.randn(1, 3, 64, 64))
    assert all(0.05 < share < 0.6 for share in shares), shares
