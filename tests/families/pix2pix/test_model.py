from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hdgan.errors import ConfigError
from hdgan.families import PatchConfig, Pix2Pix, Pix2PixConfig, ResNetConfig, UNetConfig
from hdgan.families.saving import load_model, save_model

CONFIG = Pix2PixConfig(
    n_labels=5, instances=False, generator=UNetConfig(ngf=4, n_downs=4), discriminator=PatchConfig(ndf=4)
)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((256, 256), 8),
        ((256, 128), 7),
        ((64, 32), 5),
        ((2048, 1024), 8),
        ((255, 300), 7),
        ((100,), 6),
        ((3, 3), 2),
        ((), 8),
    ],
)
def test_depth_by_size(sides: tuple[int, ...], expected: int) -> None:
    assert Pix2PixConfig().resolved(sides).generator.n_downs == expected
    given = Pix2PixConfig(generator=UNetConfig(n_downs=3))
    assert given.resolved(sides) == given
    assert Pix2PixConfig(generator=ResNetConfig()).resolved(sides) == Pix2PixConfig(generator=ResNetConfig())


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("instances", [True, False])
def test_networks_see_what_they_should(norm: str, instances: bool) -> None:
    model = Pix2Pix(replace(CONFIG, norm=norm, instances=instances))  # type: ignore[arg-type]
    label, ids = torch.randint(5, (2, 40, 24)), torch.randint(9, (2, 40, 24))
    condition = model.condition(label, ids)
    assert condition.shape == (2, 5 + instances, 40, 24)
    image = model.generate(condition)
    assert image.shape == (2, 3, 40, 24)
    [[scores]] = model.discriminate(model.context(condition), image)
    assert scores.shape == (2, 1, 3, 1)
    assert model.discriminator is not None
    joined = model.discriminator(torch.cat([condition.dense(), image], dim=1))
    torch.testing.assert_close(joined[0][0], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("generator", [UNetConfig(ngf=4, n_downs=3), ResNetConfig(ngf=4, n_blocks=1)])
def test_weights_begin_as_the_originals(generator: UNetConfig | ResNetConfig, norm: str) -> None:
    torch.manual_seed(0)
    parameters = dict(Pix2Pix(replace(CONFIG, norm=norm, generator=generator)).named_parameters())  # type: ignore[arg-type]
    biases = [value for name, value in parameters.items() if name.endswith("bias")]
    assert len(biases) > 3
    assert all(not bias.any() for bias in biases)
    weights = torch.cat([value.detach().flatten() for value in parameters.values() if value.dim() == 4])
    assert weights.std() == pytest.approx(0.02, rel=0.05)
    assert abs(weights.mean()) < 1e-3


def test_images_too_small_for_d() -> None:
    model = Pix2Pix(CONFIG)
    assert CONFIG.discriminator.least_side == 24
    assert model.discriminate(model.context(torch.ones(2, 5, 24, 24)), torch.ones(2, 3, 24, 24))[0][0].shape[2:] == (
        1,
        1,
    )
    with pytest.raises(ConfigError, match="images of 30x23 are too small for D, which needs 24 pixels"):
        model.context(torch.ones(1, 5, 23, 30))


@pytest.mark.parametrize("size", [(1, 3), (24, 32), (33, 30)])
def test_resnet_generator_at_any_size(size: tuple[int, int]) -> None:
    model = Pix2Pix(replace(CONFIG, generator=ResNetConfig(ngf=2, n_blocks=2))).eval()
    condition = model.condition(torch.randint(5, (1, *size)))
    pictures = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        pictures.append(model.generate(condition))
    assert pictures[0].shape == (1, 3, *size)
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_without_discriminator_and_encoder() -> None:
    model = Pix2Pix(CONFIG)
    model.discriminator = None
    assert model.encoder is None
    assert all(key.startswith("generator.") for key in model.state_dict())


def test_file_carries_the_depth_and_the_statistics(tmp_path: Path) -> None:
    model = Pix2Pix(replace(CONFIG, generator=UNetConfig(ngf=1)))
    model.generate(model.condition(torch.randint(5, (1, 8, 8))))
    save_model(tmp_path / "model.safetensors", model)
    loaded, info = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, Pix2Pix)
    assert loaded.config.generator == UNetConfig(ngf=1, n_downs=8)
    assert info.missing == ()
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert ours["generator.up_norms.0.num_batches_tracked"] == 1


def test_takes_over_equal_networks_whole() -> None:
    model, other = Pix2Pix(CONFIG), Pix2Pix(CONFIG)
    other.copy_from(model)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        Pix2Pix(replace(CONFIG, image_channels=1)).copy_from(model)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"generator": UNetConfig(n_downs=1)}, "model.generator.n_downs is 1: give a whole number from 2 to 12"),
        ({"generator": UNetConfig(n_downs=20)}, "model.generator.n_downs is 20: give a whole number from 2 to 12"),
        (
            {"generator": UNetConfig(n_downs=3, dropout_levels=(0, 2))},
            "model.generator.dropout_levels is 0 2: give levels from 0 to 1, since there are 3",
        ),
        ({"generator": UNetConfig(ngf=0)}, "model.generator.ngf is 0"),
        ({"generator": UNetConfig(dropout_levels=(0, -1))}, r"model.generator.dropout_levels\[1\] is -1"),
        ({"generator": ResNetConfig(n_blocks=-1)}, "model.generator.n_blocks is -1"),
        ({"discriminator": PatchConfig(n_layers=0)}, "model.discriminator.n_layers is 0"),
        ({"discriminator": PatchConfig(ndf=-1)}, "model.discriminator.ndf is -1"),
    ],
)
def test_bad_options(options: dict[str, UNetConfig | PatchConfig], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Pix2PixConfig(**options)  # type: ignore[arg-type]


def test_there_is_noise_where_levels_drop() -> None:
    assert Pix2PixConfig(generator=UNetConfig(n_downs=2)).variants is None
    assert Pix2PixConfig(generator=UNetConfig(n_downs=5, dropout_levels=(3,))).variants is None
    assert Pix2PixConfig(generator=UNetConfig(n_downs=5, dropout_levels=())).variants == 1
    deep = Pix2PixConfig(generator=UNetConfig(dropout_levels=(5,)))
    assert deep.resolved((256, 256)).generator.n_downs == 8
    with pytest.raises(ConfigError, match=r"dropout_levels is 5: give levels from 0 to 4"):
        deep.resolved((64, 64))
