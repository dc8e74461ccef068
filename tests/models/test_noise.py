"""Noise inside a generator."""

import pytest
import torch
from torch import nn

from hdgan.models import GlobalGenerator, LocalEnhancer
from hdgan.models.blocks import init_weights, recomputing, up_conv
from hdgan.models.noise import Noise, noise_after


def test_one_plane_scaled_for_each_channel():
    torch.manual_seed(0)
    noise = Noise(3, 0.5).requires_grad_(False)
    noise.scale.copy_(torch.tensor([0.0, 1.0, -2.0]))
    h = torch.randn(2, 3, 64, 64)
    added = noise(h) - h
    assert torch.equal(added[:, 0], torch.zeros(2, 64, 64))
    torch.testing.assert_close(added[:, 2], -2 * added[:, 1], rtol=0, atol=2e-6)
    assert float(added[:, 1].std()) == pytest.approx(1, abs=0.05)
    assert float((added[0, 1] * added[1, 1]).mean()) == pytest.approx(0, abs=0.05)  # each image has its own


def test_the_seed_determines_it():
    noise, h = Noise(2, 1.0), torch.zeros(1, 2, 8, 8)
    drawn = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        drawn.append(noise(h))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_gradients():
    noise = Noise(3, 0.5).double()

    def seeded(h, scale):
        torch.manual_seed(0)
        return torch.func.functional_call(noise, {"scale": scale}, h)

    h = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, (h, noise.scale.detach().requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_keeps_dtype_and_layout(dtype, memory_format):
    h = torch.randn(2, 8, 6, 10, dtype=dtype).to(memory_format=memory_format)
    y = Noise(8, 1.0)(h)
    assert (y.dtype, y.shape) == (dtype, h.shape)
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("mode", ["transposed", "resize"])
def test_strength_is_relative_to_a_new_convolutions_output(mode):
    torch.manual_seed(0)
    conv = up_conv(64, mode)
    init_weights(conv)
    y = conv(torch.randn(1, 64, 32, 32).relu()).detach()
    root_mean_square = y[:, :, 2:-2, 2:-2].square().mean().sqrt()
    noise = noise_after(conv, 0.3).requires_grad_(False)
    assert float(noise.scale[0] / root_mean_square) == pytest.approx(0.3, rel=0.1)


def test_no_strength_no_noise():
    assert isinstance(noise_after(nn.Conv2d(4, 4, 3), 0.0), nn.Identity)
    assert not [m for m in LocalEnhancer(3, 3, 2, 1, 1).modules() if isinstance(m, Noise)]


def test_a_constant_map_gets_texture():
    torch.manual_seed(0)
    x = torch.ones(1, 3, 64, 64)
    centre = (slice(None), slice(None), slice(24, 40), slice(24, 40))
    plain, noisy = (GlobalGenerator(3, 3, 4, 2, 0, "replicate", noise=noise)(x)[centre] for noise in (0.0, 0.3))
    period = plain[:, :, ::4, ::4]  # transposed convolutions repeat their cell
    assert float((period - period[:, :, :1, :1]).abs().max()) < 1e-3
    period = noisy[:, :, ::4, ::4]
    assert float(period.std()) > 1e-2


def test_a_step_that_makes_norms_again_has_the_same_bits():
    """The backward pass repeats norms, but never what draws."""
    network, x = LocalEnhancer(4, 3, 4, 1, 1, noise=0.3), torch.randn(1, 4, 16, 16)
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with recomputing(enabled):
            y = network(x)
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        network.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(module.scale.requires_grad for module in network.modules() if isinstance(module, Noise))
