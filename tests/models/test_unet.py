import pytest
import torch
from torch import nn

from hdgan.models import UNetGenerator
from hdgan.models.inputs import run_at_multiple


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (17, 30), (1, 5), (48, 33)])
def test_any_size(size, norm):
    y = UNetGenerator(3, 4, 2, 4, norm)(torch.randn(1, 3, *size))
    assert y.shape == (1, 4, *size)
    assert y.abs().max() <= 1
    assert y.isfinite().all()


def test_innermost_level_is_one_pixel():
    network, seen = UNetGenerator(3, 3, 2, 4), []
    network.downs[-1].register_forward_hook(lambda _, __, y: seen.append(y.shape))
    network(torch.randn(2, 3, 16, 16))
    assert seen == [(2, 16, 1, 1)]


def test_padding_repeats_the_edge_and_is_cropped():
    network = UNetGenerator(2, 3, 2, 3, dropout_levels=())
    x = torch.randn(1, 2, 12, 8)
    padded = torch.cat([x, x[:, :, -1:].expand(-1, -1, 4, -1)], dim=2)
    assert torch.equal(network(x), network(padded)[:, :, :12])


@pytest.mark.parametrize(("size", "least", "inside"), [(8, 2, 16), (8, 1, 8), (3, 1, 8), (17, 1, 24)])
def test_least_size_of_the_coarsest_level(size, least, inside):
    seen = []
    y = run_at_multiple(lambda x: seen.append(x.shape) or x, torch.ones(1, 1, size, size), 8, least)
    assert seen == [(1, 1, inside, inside)]
    assert y.shape == (1, 1, size, size)


def test_widths_of_the_paper():
    with torch.device("meta"):
        network = UNetGenerator(3)
    encoder, decoder = [64, 128, 256, 512, 512, 512, 512, 512], [512, 512, 512, 512, 256, 128, 64, 3]
    assert [conv.out_channels for conv in network.downs] == encoder
    assert [conv.out_channels for conv in network.ups] == decoder
    assert [conv.in_channels for conv in network.ups] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    assert len(network.down_norms) == 6
    assert len(network.up_norms) == 7
    assert sum(p.numel() for p in network.parameters()) == 54_413_955  # as unet_256 of pytorch-CycleGAN-and-pix2pix


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_start_weights(norm):
    network = UNetGenerator(3, 3, 32, 3, norm)
    scales = [p for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in (m.weight,)]
    assert len(scales) == (3 if norm == "batch" else 0)
    assert all(abs(p.mean() - 1) < 0.02 and 0.01 < p.std() < 0.03 for p in scales)
    assert all(0.015 < conv.weight.std() < 0.025 for conv in (*network.downs, *network.ups))
    assert [conv.bias is not None for conv in network.downs] == [norm == "instance"] * 3
    assert [conv.bias is not None for conv in network.ups] == [norm == "instance"] * 2 + [True]


def test_dropout_is_on_at_test_time_and_a_seed_repeats_it():
    network, x = UNetGenerator(3, 3, 4, 4).eval(), torch.randn(1, 3, 32, 32)
    pictures = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        pictures.append(network(x))
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


@pytest.mark.parametrize("levels", [(), (0,), (0, 1, 2), (1, 2)])
def test_dropout_levels(levels, monkeypatch):
    network, dropped = UNetGenerator(3, 3, 2, 5, dropout_levels=levels), []

    def dropout(h, p, training):
        assert (p, training) == (0.5, True)
        dropped.append(h.shape[2])
        return h

    monkeypatch.setattr("hdgan.models.unet.F.dropout", dropout)
    network(torch.randn(1, 3, 32, 32))
    assert dropped == [2 ** (level + 1) for level in levels]


def test_without_dropout_test_time_is_training():
    network, x = UNetGenerator(3, 3, 4, 4, dropout_levels=()), torch.randn(2, 3, 16, 32)
    assert torch.equal(network(x), network.eval()(x))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_channels_last_and_bfloat16(norm):
    network, x = UNetGenerator(3, 3, 8, 4, norm, ()), torch.randn(2, 3, 32, 48)
    y = network(x)
    torch.testing.assert_close(
        network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last)),
        y,
        rtol=1e-3,
        atol=1e-4,
    )
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x)
    assert low.dtype == torch.bfloat16
    assert (low.float() - y).abs().max() < 0.1


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_every_live_parameter_gets_a_gradient(norm):
    network = UNetGenerator(3, 3, 2, 4, norm)
    network(torch.randn(2, 3, 16, 16)).square().sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    dead = {f"downs.{i}.bias" for i in (1, 2)} | {f"ups.{i}.bias" for i in (0, 1, 2)}
    assert without == (dead if norm == "instance" else set())
