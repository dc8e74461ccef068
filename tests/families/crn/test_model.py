from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hdgan.errors import ConfigError
from hdgan.families import CRN, CRNConfig, CRNStage, build_model
from hdgan.families.saving import load_model, save_model
from hdgan.models import CascadedRefinement
from hdgan.models.crn import LayerNormAct

CONFIG = CRNConfig(n_labels=5, n_modules=3, width=1 / 128, n_images=2)


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


def test_widths_are_the_papers():
    assert CRNConfig(n_modules=7).widths == (1024,) * 5 + (512,) * 2
    assert CRNConfig(n_modules=9).widths == (1024,) * 5 + (512,) * 2 + (128, 32)
    assert CRNConfig(n_modules=7, extra_modules=4, width=0.25).widths == (256,) * 5 + (128,) * 2 + (32, 8, 8, 8)
    assert CRNConfig(n_modules=9, width=0.001).widths[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_modules": 0}, "model.n_modules is 0: give a whole number from 1"),
        ({"width": -1.0}, "model.width is -1.0: give a number above 0"),
        ({"n_images": 0}, "model.n_images is 0: give a whole number from 1"),
        ({"n_labels": -1}, "model.n_labels is -1: give a whole number from 0"),
    ],
)
def test_bad_architectures(options, message):
    with pytest.raises(ConfigError, match=message):
        CRNConfig(**options)


def test_one_image_is_generated_within_bounds():
    model = build_model(CONFIG)
    assert isinstance(model, CRN)
    assert [name for name, _ in model.named_children()] == ["generator"]
    condition = model.condition(torch.randint(5, (2, 16, 24)))
    assert condition.shape == (2, 5, 16, 24)
    torch.nn.init.constant_(model.generator.head.weight, 0)
    model.generator.head.bias.data = torch.tensor([-2.0, 0.5, 2.0, 9.0, 9.0, 9.0])
    assert model.images(condition).shape == (2, 2, 3, 16, 24)
    assert torch.equal(model.images(condition)[0, :, :, 0, 0], torch.tensor([[-2.0, 0.5, 2.0], [9.0, 9.0, 9.0]]))
    assert torch.equal(model.generate(condition)[1, :, 3, 5], torch.tensor([-1.0, 0.5, 1.0]))
    assert model.generate(condition, variant=1).eq(1).all()


def test_a_file_says_its_architecture(tmp_path):
    model = CRN(replace(CONFIG, extra_modules=1, dontcare=3))
    save_model(tmp_path / "model.safetensors", model)
    loaded, info = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is CRN
    assert loaded.config == model.config
    assert info.missing == ()
    condition = model.condition(torch.randint(5, (1, 16, 32)))
    assert torch.equal(loaded.generate(condition), model.generate(condition))


def test_stages_add_modules_and_may_train_the_finest_alone():
    one, other = CRNStage(extra_modules=1), CRNStage(extra_modules=1, train="finest")
    grown = one.model(CONFIG)
    assert grown.growth == {"module": 4}
    assert CONFIG.growth == {"module": 3}
    assert other.model(grown) == grown
    small, model = CRN(CONFIG), CRN(grown)
    model.copy_from(small)
    assert torch.equal(model.generator.levels[2].conv1.weight, small.generator.levels[2].conv1.weight)
    finest = {id(p) for module in (model.generator.levels[3], model.generator.head) for p in module.parameters()}
    for stage, expected in ((other, finest), (one, {id(p) for p in model.parameters()})):
        modules = stage.trained_modules(model)
        assert {id(p) for module in modules for p in module.parameters()} == expected
    assert other.trained_names(grown) == ["finest module"]
    assert one.trained_names(grown) == ["4 modules"]


def test_images_as_input():
    model = CRN(CRNConfig(n_labels=0, input_channels=2, n_modules=2, width=1 / 128))
    source = torch.rand(1, 2, 9, 14)
    assert torch.equal(model.condition(source=source), source)
    assert model.generate(source).shape == (1, 3, 9, 14)
