"""Several images of one input that a model makes by itself: CRN's images, noise of pix2pix and pix2pixHD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands.main import main
from hdgan.errors import ConfigError
from hdgan.families import (
    CRNConfig,
    GeneratorConfig,
    ModelConfig,
    PatchConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    UNetConfig,
    build_model,
)
from hdgan.families.saving import save_model
from hdgan.inference import Pipeline, load

SEVERAL = CRNConfig(n_labels=4, n_modules=3, width=1 / 64, n_images=2)
NOISE = Pix2PixConfig(
    n_labels=4, instances=False, norm="instance", generator=UNetConfig(4, 3), discriminator=PatchConfig(4)
)
QUIET = Pix2PixConfig(
    n_labels=4, instances=False, norm="instance", generator=UNetConfig(4, 3, ()), discriminator=PatchConfig(4)
)
HD_NOISE = Pix2PixHDConfig(n_labels=4, instances=False, generator=GeneratorConfig(2, 1, 1, noise=0.5))


def saved(config: ModelConfig, file: Path) -> Path:
    torch.manual_seed(0)
    save_model(file, build_model(config))
    return file


def test_each_image_of_a_crn_is_a_variant(tmp_path: Path, label: Path) -> None:
    pipeline: Pipeline = load(saved(SEVERAL, tmp_path / "x.safetensors"))
    first, second = pipeline(label), pipeline(label, variant=1)
    assert torch.equal(pipeline(label, variant=0), first)
    assert not torch.equal(first, second)
    with pytest.raises(ConfigError, match="variant is 2: the model generates 2 images of an input"):
        pipeline(label, variant=2)


@pytest.mark.parametrize("config", [NOISE, HD_NOISE], ids=["pix2pix", "pix2pixhd"])
def test_noise_makes_variants_of_every_seed(config: ModelConfig, tmp_path: Path, label: Path) -> None:
    pipeline: Pipeline = load(saved(config, tmp_path / "x.safetensors"))
    keys = [(seed, variant) for seed in (0, 1) for variant in (0, 1, 2)]
    pictures = {pipeline(label, seed=seed, variant=variant).cpu().numpy().tobytes() for seed, variant in keys}
    assert len(pictures) == len(keys)
    assert torch.equal(pipeline(label, seed=1, variant=2), pipeline(label, seed=1, variant=2))
    with pytest.raises(ConfigError, match="seed is -1: give 0 or more"):
        pipeline(label, seed=-1)


def test_without_noise_there_is_one(tmp_path: Path, label: Path) -> None:
    pipeline: Pipeline = load(saved(QUIET, tmp_path / "x.safetensors"))
    assert torch.equal(pipeline(label, seed=1), pipeline(label, seed=2))
    with pytest.raises(ConfigError, match="variant is 1: the model generates 1 images"):
        pipeline(label, variant=1)


@pytest.mark.parametrize(
    ("config", "most"), [(SEVERAL, 2), (NOISE, None), (HD_NOISE, None)], ids=["crn", "pix2pix", "pix2pixhd"]
)
def test_the_command_writes_them(
    config: ModelConfig, most: int | None, tmp_path: Path, label: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(config, tmp_path / "x.safetensors")
    arguments = ["generate", str(file), "--label", str(label), "--out", str(tmp_path / "y.png")]
    assert main([*arguments, "--variants", "2", "--seed", "3"]) == 0
    found = [np.asarray(Image.open(tmp_path / f"y_{k}.png")) for k in (1, 2)]
    pipeline: Pipeline = load(file)
    for variant, picture in enumerate(found):
        expected = pipeline(label, seed=3, variant=variant).permute(1, 2, 0).cpu().numpy() * 255
        np.testing.assert_allclose(picture, expected, atol=0.51)
    assert not np.array_equal(*found)
    assert main([*arguments, "--variants", "3"]) == (0 if most is None else 2)
    said = capsys.readouterr().err
    assert ("--variants is 3: the model generates 2 images of each input" in said) == (most == 2)
