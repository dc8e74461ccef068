"""The networks compute the same on kernels as on plain PyTorch."""

import pytest
import torch

from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.ops import backend

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
TRITON = pytest.param("triton", marks=pytest.mark.gpu)


def small_model():
    torch.manual_seed(0)
    generator = GeneratorConfig(ngf=8, n_downsample=2, n_blocks=2, n_blocks_local=1, n_enhancers=1)
    return Pix2PixHD(Pix2PixHDConfig(n_labels=5, feature_channels=2, generator=generator))


def run(model, label, ids, photo):
    """An image, and the gradients of all networks from a loss that uses them all."""
    model.zero_grad()
    condition = model.condition(label, ids)
    picture = model.generate(condition, model.encode(photo, ids))
    features = model.discriminate(model.context(condition), picture)
    sum(feature.square().mean() for scale in features for feature in scale).backward()
    return picture.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["cpu", GPU, TRITON])
def test_equal_to_eager(name, memory_format, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    device = "cpu" if name == "cpu" else "cuda"
    model = small_model().to(device, memory_format=memory_format)
    label = torch.randint(5, (2, 40, 56), device=device)
    photo = torch.rand(2, 3, 40, 56, device=device).mul(2).sub(1).contiguous(memory_format=memory_format)
    with backend("eager"):
        expected, gradients = run(model, label, label, photo)
    with backend(name):
        found, ours = run(model, label, label, photo)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(ours) == len(gradients) > 40
    for mine, theirs in zip(ours, gradients, strict=True):
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm() + 1e-7


def test_exports_with_and_without_kernels():
    model = small_model().eval()
    condition = torch.randn(1, model.config.generator_channels, 16, 24)
    expected = model.generator(condition)
    exported = torch.export.export(model.generator, (condition,))
    torch.testing.assert_close(exported.module()(condition), expected)
    assert "hdgan.instance_norm_act" in str(exported.graph)
    with backend("eager"):
        portable = torch.export.export(model.generator, (condition,))
    torch.testing.assert_close(portable.module()(condition), expected, rtol=1e-4, atol=1e-4)
    assert "hdgan" not in str(portable.graph)
