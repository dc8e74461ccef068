import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hdgan.models import FeatureEncoder
from hdgan.ops import instance_index


def plain_features(network, x):
    trunk = network.trunk
    layers = []
    for conv in (trunk.stem, *trunk.downs, *trunk.ups):
        pad = [nn.ReflectionPad2d(3)] if conv is trunk.stem else []
        layers += [*pad, conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), network.head, nn.Tanh())(x)


def plain_means(features, ids):
    """As the original: every instance of every image, one after the other."""
    result = features.clone()
    for b in range(features.shape[0]):
        for value in ids[b].unique():
            mask = ids[b] == value
            result[b, :, mask] = features[b, :, mask].mean(1, keepdim=True)
    return result


def photo_and_ids(height=16, width=24, dtype=torch.float64):
    torch.manual_seed(0)
    ids = torch.randint(0, 3, (2, height // 4 + 1, width // 4 + 1)) * 26001
    ids = ids.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width]
    return torch.randn(2, 3, height, width, dtype=dtype), ids


def test_equals_plain_formulation():
    network = FeatureEncoder(3, 4, 2, 2).double()
    photo, ids = photo_and_ids()
    results = []
    for run in (network, lambda x, ids: plain_means(plain_features(network, x), ids)):
        network.zero_grad()
        given = photo.clone().requires_grad_()
        y = run(given, ids)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        live = [p.grad for name, p in network.named_parameters() if name.endswith("weight")]
        results.append([y.detach(), given.grad, network.head.bias.grad, *live])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (17, 30)])
@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_any_size_and_constant_on_each_instance(size, reduction):
    photo, ids = photo_and_ids(*size, dtype=torch.float32)
    y = FeatureEncoder(3, 5, 2, 2, reduction)(photo, ids)
    assert y.shape == (2, 5, *size)
    assert y.abs().max() <= 1
    torch.testing.assert_close(y, plain_means(y, ids))


def test_reduction_encodes_the_halved_photo():
    network = FeatureEncoder(3, 4, 2, 2, reduction=1).double()
    photo, ids = photo_and_ids()
    half = F.avg_pool2d(photo, 3, 2, 1, count_include_pad=False)
    features = F.interpolate(plain_features(network, half), scale_factor=2, mode="nearest")
    torch.testing.assert_close(network(photo, ids), plain_means(features, ids))


def test_index_in_place_of_ids():
    network = FeatureEncoder(3, 4, 2, 2)
    photo, ids = photo_and_ids(dtype=torch.float32)
    assert torch.equal(network(photo, instance_index(ids)), network(photo, ids))


def test_channels_last_gives_the_same():
    network = FeatureEncoder(3, 4, 2, 2)
    photo, ids = photo_and_ids(dtype=torch.float32)
    expected = network(photo, ids)
    network.to(memory_format=torch.channels_last)
    y = network(photo.to(memory_format=torch.channels_last), ids)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_trains():
    network = FeatureEncoder(3, 4, 2, 2)
    photo, ids = photo_and_ids(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(photo, ids)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for name, p in network.named_parameters() if name.endswith("weight"))
