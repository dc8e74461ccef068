from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hdgan.errors import ConfigError
from hdgan.families import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    Pix2PixHDStage,
)
from hdgan.models import GlobalGenerator, LocalEnhancer
from hdgan.ops import boundary_map

CONFIG = Pix2PixHDConfig(
    n_labels=5,
    feature_channels=2,
    generator=GeneratorConfig(ngf=8, n_downsample=2, n_blocks=1, n_blocks_local=1),
    discriminator=DiscriminatorConfig(ndf=2, n_layers=2, n_scales=2),
    encoder=EncoderConfig(nef=2, n_downsample=2),
)


def batch(height=16, width=20):
    torch.manual_seed(0)
    label = torch.randint(0, 5, (2, height // 4, width // 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return label, label * 1000 + 1, torch.rand(2, 3, height, width) * 2 - 1


def test_input_order_is_labels_boundary_features():
    model = Pix2PixHD(CONFIG)
    label, ids, photo = batch()
    condition = model.condition(label, ids)
    dense = condition.dense()
    assert torch.equal(dense[:, :5], F.one_hot(label, 5).permute(0, 3, 1, 2).float())
    assert torch.equal(dense[:, 5], boundary_map(ids).float())
    features = model.encode(photo, ids)
    expected = model.generator(torch.cat([dense, features], 1))
    torch.testing.assert_close(model.generate(condition, features), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.generate(dense, features), expected)


def test_discriminator_sees_condition_and_image_never_features():
    model = Pix2PixHD(CONFIG)
    label, ids, photo = batch()
    condition = model.condition(label, ids)
    found = model.discriminate(model.context(condition), photo)
    expected = model.discriminator(torch.cat([condition.dense(), photo], 1))
    for features, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(features, wanted, rtol=1e-5, atol=1e-6)
    assert model.discriminator.scales[0].convs[0].in_channels == 9


def test_the_discriminator_refuses_other_channels():
    model = Pix2PixHD(CONFIG)
    label, ids, photo = batch()
    condition = model.condition(label, ids).dense()
    with pytest.raises(ValueError, match="expected condition with 6 channels, got 9"):
        model.context(torch.cat([condition, photo], 1))
    with pytest.raises(ValueError, match="expected image with 3 channels, got 9"):
        model.discriminate(model.context(condition), torch.cat([condition, photo], 1))
    with pytest.raises(ValueError, match="expected 9 channels, got 3"):
        model.discriminator(photo)


@pytest.mark.parametrize(
    ("options", "condition", "generator", "discriminator"),
    [
        ({}, 6, 8, 9),
        ({"instances": False}, 5, 7, 8),
        ({"feature_channels": 0}, 6, 6, 9),
        ({"n_labels": 0, "input_channels": 4}, 5, 7, 8),
        ({"n_labels": 0, "instances": False, "feature_channels": 0}, 3, 3, 6),
        ({"image_channels": 1}, 6, 8, 7),
    ],
)
def test_channels(options, condition, generator, discriminator):
    config = replace(CONFIG, **options)
    assert (config.condition_channels, config.generator_channels, config.discriminator_channels) == (
        condition,
        generator,
        discriminator,
    )
    model = Pix2PixHD(config)
    assert model.generator.trunk.stem.in_channels == generator
    assert model.discriminator.scales[0].convs[0].in_channels == discriminator
    assert (model.encoder is None) == (config.feature_channels == 0)


def test_image_as_condition():
    _, ids, photo = batch()
    with_ids = Pix2PixHD(replace(CONFIG, n_labels=0))
    condition = with_ids.condition(source=photo, ids=ids)
    assert torch.equal(condition[:, :3], photo)
    assert torch.equal(condition[:, 3], boundary_map(ids).float())
    without = Pix2PixHD(replace(CONFIG, n_labels=0, instances=False, feature_channels=0))
    assert torch.equal(without.condition(source=photo, ids=ids), photo)
    assert without.encode(photo, ids) is None


def test_dontcare_label_has_no_class():
    label, ids, _ = batch()
    condition = Pix2PixHD(replace(CONFIG, dontcare=2)).condition(label, ids).dense()
    assert condition[:, 2].sum() == 0
    assert condition[:, :5].sum() == (label != 2).sum()


def test_images_have_the_dtype_of_the_generator():
    label, ids, photo = batch()
    model = Pix2PixHD(CONFIG).double()
    condition = model.condition(label, ids)
    assert model.generate(condition, model.encode(photo.double(), ids)).dtype == torch.float64
    assert model.context(condition)[0].dtype == torch.float64
    features = torch.rand(2, 2, 16, 20)  # as the styles of a file are
    for dtype in (torch.float64, torch.bfloat16):
        assert model.to(dtype).generate(condition, features).dtype == dtype


@pytest.mark.parametrize("size", [(16, 20), (20, 28)])
def test_one_step_gives_gradients_everywhere(size):
    model = Pix2PixHD(Pix2PixHDStage(n_enhancers=1, n_scales=3).model(CONFIG))
    label, ids, photo = batch(*size)
    condition = model.condition(label, ids)
    fake = model.generate(condition, model.encode(photo, ids))
    assert fake.shape == photo.shape
    sum(scale[-1].square().mean() for scale in model.discriminate(model.context(condition), fake)).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_grown_config():
    config = Pix2PixHDStage(n_enhancers=2, n_scales=3).model(CONFIG)
    assert (config.generator.n_enhancers, config.discriminator.n_scales, config.encoder.reduction) == (2, 3, 2)
    model = Pix2PixHD(config)
    assert isinstance(model.generator, LocalEnhancer)
    assert model.generator.coarse.stem.out_channels == 8
    assert isinstance(Pix2PixHD(CONFIG).generator, GlobalGenerator)


def test_copy_from_an_equal_model_copies_all():
    model, other = Pix2PixHD(CONFIG), Pix2PixHD(CONFIG)
    other.copy_from(model)
    first, second = model.state_dict(), other.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_copy_from_a_smaller_stage():
    small = Pix2PixHD(CONFIG)
    large = Pix2PixHD(Pix2PixHDStage(n_enhancers=1, n_scales=3).model(CONFIG))
    large.copy_from(small)
    label, ids, photo = batch()
    condition = small.condition(label, ids).dense()
    features = small.encode(photo, ids)
    inputs = torch.cat([condition, features], 1)
    assert torch.equal(large.generator.coarse(inputs), small.generator.trunk(inputs))
    for finer, coarser in zip(large.discriminator.scales[1:], small.discriminator.scales, strict=True):
        assert torch.equal(finer.convs[0].weight, coarser.convs[0].weight)
    doubled = photo.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert large.encode(doubled, ids.repeat_interleave(2, 1).repeat_interleave(2, 2)).shape == (2, 2, 32, 40)


def test_without_discriminator():
    model = Pix2PixHD(CONFIG)
    model.discriminator = None
    model.copy_from(Pix2PixHD(CONFIG))
    assert not any(key.startswith("discriminator") for key in model.state_dict())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_labels": -1}, "n_labels is -1"),
        ({"n_labels": 0, "input_channels": 0}, "input_channels is 0"),
        ({"generator": GeneratorConfig(ngf=6, n_enhancers=2)}, "ngf is 6: .*multiple of 4"),
        ({"generator": GeneratorConfig(n_downsample=0)}, "n_downsample is 0"),
        ({"n_labels": 0, "instances": False}, "feature_channels is 2, but features are averaged over"),
    ],
)
def test_configs_that_cannot_work(options, says):
    with pytest.raises(ConfigError, match=says):
        replace(CONFIG, **options)
