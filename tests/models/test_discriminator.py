import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdgan.models import MultiscaleDiscriminator, PatchDiscriminator
from hdgan.models.blocks import recomputing
from hdgan.ops import avg_pyramid


def plain_layers(patch):
    """A PatchGAN's layers in the plain formulation."""
    first, *middle, last = patch.convs
    layers = [nn.Sequential(first, nn.LeakyReLU(0.2))]
    layers += [nn.Sequential(conv, nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(0.2)) for conv in middle]
    return [*layers, last]


def plain_forward(network, x):
    results = []
    for patch in network.scales:
        features = [x]
        for layer in plain_layers(patch):
            features.append(layer(features[-1]))
        results.append(features[1:])
        x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    return results


@pytest.mark.parametrize(("n_layers", "n_scales"), [(1, 1), (2, 2), (3, 3), (4, 1)])
def test_equals_plain_formulation(n_layers, n_scales):
    network = MultiscaleDiscriminator(4, 3, n_layers, n_scales).double()
    x = torch.randn(2, 4, 41, 30, dtype=torch.float64)
    results = []
    for run in (network, lambda x: plain_forward(network, x)):
        network.zero_grad()
        given = x.clone().requires_grad_()
        outputs = [feature for scale in run(given) for feature in scale]
        sum(feature.square().sum() + feature.sum() for feature in outputs).backward()
        live = [p.grad for name, p in network.named_parameters() if name.endswith("weight")]
        results.append([*(feature.detach() for feature in outputs), given.grad, *live])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("norm", "padding"), [("batch", 1), ("batch", 2), ("instance", 1)])
def test_norm_and_padding_equal_plain_formulation(norm, padding):
    network = PatchDiscriminator(4, 3, 3, norm, padding).double()
    x = torch.randn(2, 4, 40, 56, dtype=torch.float64)
    plain = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}[norm]
    results = []
    for recompute in (False, True):
        with recomputing(recompute):
            features = network(x)
        h, expected = x, []
        for i, conv in enumerate(network.convs):
            h = F.conv2d(h, conv.weight, conv.bias, conv.stride, padding)
            if 0 < i < 4:
                h = plain(conv.out_channels).double()(h)
                if norm == "batch":
                    affine = network.norms[i - 1]
                    h = h * affine.weight[:, None, None] + affine.bias[:, None, None]
            h = F.leaky_relu(h, 0.2) if i < 4 else h
            expected.append(h)
        for found, wanted in zip(features, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        network.zero_grad()
        features[-1].square().sum().backward()
        results.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    counts = [int(value) for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counts == ([2, 2, 2] if norm == "batch" else [])  # once a forward pass, also where it is repeated


@pytest.mark.parametrize(("n_layers", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field(n_layers, pixels):
    network = PatchDiscriminator(1, 1, n_layers, padding=1)
    for conv in network.convs:
        nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 320, 320, requires_grad=True)
    h = x
    for conv in network.convs:
        h = F.conv2d(h, conv.weight, None, conv.stride, conv.padding)
    h[0, 0, h.shape[2] // 2, h.shape[3] // 2].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [pixels, pixels]


@pytest.mark.parametrize("n_layers", [2, 3, 4])
def test_widths_and_strides(n_layers):
    convs = PatchDiscriminator(5, 128, n_layers).convs
    widths = [128, 256, 512, 512, 512][: n_layers + 1]
    assert [conv.out_channels for conv in convs] == [*widths, 1]
    assert [conv.stride[0] for conv in convs] == [2] * n_layers + [1, 1]


def test_shapes_of_every_scale():
    outputs = MultiscaleDiscriminator(3, 2, 3, 2)(torch.randn(1, 3, 65, 64))
    assert [[tuple(feature.shape) for feature in scale] for scale in outputs] == [
        [(1, 2, 33, 33), (1, 4, 17, 17), (1, 8, 9, 9), (1, 16, 10, 10), (1, 1, 11, 11)],
        [(1, 2, 17, 17), (1, 4, 9, 9), (1, 8, 5, 5), (1, 16, 6, 6), (1, 1, 7, 7)],
    ]


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 33)])
def test_any_size(size):
    outputs = MultiscaleDiscriminator(3, 2, 2, 3)(torch.randn(2, 3, *size))
    assert len(outputs) == 3
    assert all(feature.isfinite().all() for scale in outputs for feature in scale)


def test_without_intermediate_features_only_scores():
    network = MultiscaleDiscriminator(3, 2, 2, 2)
    x = torch.randn(1, 3, 16, 16)
    scores = [scale[-1] for scale in network(x)]
    network.intermediate_features = False
    outputs = network(x)
    assert [len(scale) for scale in outputs] == [1, 1]
    assert all(torch.equal(found, score) for (found,), score in zip(outputs, scores, strict=True))


def test_channels_last_gives_the_same():
    network = MultiscaleDiscriminator(3, 4, 2, 2)
    x = torch.randn(2, 3, 24, 16)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    for scale, wanted in zip(network(x.to(memory_format=torch.channels_last)), expected, strict=True):
        for feature, value in zip(scale, wanted, strict=True):
            torch.testing.assert_close(feature, value, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_trains():
    network = MultiscaleDiscriminator(3, 4, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(torch.randn(1, 3, 16, 16))
    assert outputs[0][-1].dtype == torch.bfloat16
    sum(scale[-1].float().square().mean() for scale in outputs).backward()
    assert all(p.grad.isfinite().all() for name, p in network.named_parameters() if name.endswith("weight"))


def test_grown_discriminator_equals_the_old_one_at_its_resolution():
    small, grown = MultiscaleDiscriminator(3, 2, 2, 2), MultiscaleDiscriminator(3, 2, 2, 3)
    new = grown.scales[0].convs[0].weight.clone()
    grown.copy_coarse_from(small)
    x = torch.randn(1, 3, 32, 48)
    half = avg_pyramid(x, 1)[1]
    for found, expected in zip(grown(x)[1:], small(half), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(grown.scales[0].convs[0].weight, new)


def test_growth_of_another_width():
    with pytest.raises(RuntimeError, match="size mismatch"):
        MultiscaleDiscriminator(3, 4).copy_coarse_from(MultiscaleDiscriminator(3, 2))
