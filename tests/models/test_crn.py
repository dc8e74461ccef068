import pytest
import torch
import torch.nn.functional as F

from hdgan.models.crn import CascadedRefinement, LayerNormAct


def layer_norm_act(x, norm):
    """By the formula."""
    mean = x.mean((1, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((1, 2, 3), keepdim=True)
    y = (x - mean) / (variance + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    return torch.where(y > 0, y, 0.2 * y)


def plain(network, x):
    """A cascade as the paper says it, the finest module first and recursively."""

    def refined(level, condition):
        read = condition
        if level:
            below = refined(level - 1, F.avg_pool2d(condition, 2))
            up = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=True)
            read = torch.cat([up, condition], dim=1)
        module = network.levels[level]
        h = layer_norm_act(F.conv2d(read, module.conv1.weight, padding=1), module.norm1)
        return layer_norm_act(F.conv2d(h, module.conv2.weight, padding=1), module.norm2)

    return network.head(refined(len(network.levels) - 1, x))


def network(widths=(8, 8, 6), in_channels=4, out_channels=3):
    torch.manual_seed(0)
    network = CascadedRefinement(in_channels, out_channels, widths)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.5)
    return network


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_cascade_of_the_paper(format):
    ours = network().to(memory_format=format)
    x = torch.randn(2, 4, 16, 32).contiguous(memory_format=format).requires_grad_()
    y, expected = ours(x), plain(ours, x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    dy = torch.randn_like(y)
    wanted = [x, *ours.parameters()]
    for got, gradient in zip(
        torch.autograd.grad(y, wanted, dy), torch.autograd.grad(expected, wanted, dy), strict=True
    ):
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-4)


def test_one_module_reads_the_condition_alone():
    ours = network(widths=(8,))
    x = torch.randn(1, 4, 4, 8)
    torch.testing.assert_close(ours(x), plain(ours, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 32), (17, 30), (5, 9), (1, 1)])
def test_any_size(size):
    y = network()(torch.randn(1, 4, *size))
    assert y.shape == (1, 3, *size)
    assert y.isfinite().all()


def test_uneven_sizes_are_padded_by_their_edge():
    ours, x = network(), torch.randn(1, 4, 15, 30)
    padded = F.pad(x, (0, 2, 0, 1), mode="replicate")
    torch.testing.assert_close(ours(x), plain(ours, padded)[:, :, :15, :30], rtol=1e-4, atol=1e-5)


def test_first_weights():
    ours = CascadedRefinement(4, 3, (64, 32))
    for module in ours.levels:
        assert module.conv1.bias is None
        bound = (6 / (9 * (module.conv1.in_channels + module.conv1.out_channels))) ** 0.5
        assert 0.95 * bound < module.conv1.weight.abs().max() <= bound
    assert ours.head.bias.eq(0).all()


def test_layer_norm_is_over_all_channels():
    norm = LayerNormAct(3)
    x = torch.randn(2, 3, 4, 5) * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)
    y = norm(x)
    y = torch.where(y > 0, y, y / 0.2)
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var((1, 2, 3), correction=0), torch.ones(2), rtol=1e-3, atol=0)
    assert y[:, 0].std() < 0.1 * y[:, 2].std()


def test_a_grown_cascade_takes_over_modules():
    small, grown = network(widths=(8, 8)), network(widths=(8, 8, 6))
    finest = grown.levels[2].conv1.weight.clone()
    torch.nn.init.normal_(small.levels[1].conv2.weight)
    grown.copy_coarse_from(small)
    assert torch.equal(grown.levels[1].conv2.weight, small.levels[1].conv2.weight)
    assert torch.equal(grown.levels[2].conv1.weight, finest)

    equal = network(widths=(8, 8))
    torch.nn.init.normal_(small.head.weight)
    equal.copy_coarse_from(small)
    assert torch.equal(equal.head.weight, small.head.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        network(widths=(4, 8, 6)).copy_coarse_from(small)
