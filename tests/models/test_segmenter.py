"""The built-in scorer's network, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import read_metadata, save_model
from hdgan.models.segmenter import Segmenter, SegmenterConfig, SegmenterFeatures, load_segmenter, save_segmenter


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(5, width=4))


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (16, 8), (1, 5)])
def test_any_size_has_logits_of_its_size(network: Segmenter, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size) * 2 - 1
    logits = network(image)
    assert logits.shape == (2, 5, *size)
    assert bool(logits.isfinite().all())


def test_features_are_five_maps_fine_to_coarse(network: Segmenter) -> None:
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    maps = network.features(image)
    assert [tuple(features.shape) for features in maps] == [
        (2, 4, 32, 48), (2, 8, 16, 24), (2, 16, 8, 12), (2, 32, 4, 6), (2, 32, 2, 3)
    ]  # fmt: skip
    assert tuple(features.shape[1] for features in maps) == network.feature_channels
    assert all(bool((features >= 0).all()) for features in maps)
    as_network = SegmenterFeatures(network)(image)
    assert all(torch.equal(one, other) for one, other in zip(maps, as_network, strict=True))
    pooled = network.pooled_features(image)
    torch.testing.assert_close(pooled, torch.cat([features.mean((2, 3)) for features in maps], 1))


def test_the_finest_features_know_brightness(network: Segmenter) -> None:
    """A norm by instance would level it away, and with it a perceptual loss would lose the colour of images."""
    dark = torch.rand(1, 3, 32, 32) * 0.5 - 0.9
    assert not torch.allclose(network.features(dark)[0], network.features(dark + 0.8)[0], atol=0.05)


def test_every_parameter_but_dead_biases_has_a_gradient(network: Segmenter) -> None:
    network(torch.rand(1, 3, 32, 32)).square().mean().backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {f"{part}.{k}.bias" for part in ("down", "encode", "decode") for k in range(4)}


def test_a_saved_scorer_is_the_same_network(network: Segmenter, tmp_path: Path) -> None:
    file = tmp_path / "scorer.safetensors"
    save_segmenter(file, network, {"loss": 0.5})
    loaded = load_segmenter(file)
    image = torch.rand(1, 3, 16, 32)
    assert torch.equal(loaded(image), network(image))
    assert loaded.config == network.config
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert read_metadata(file)["loss"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["scorer.safetensors"]


def test_files_that_hold_no_scorer_are_refused(network: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.safetensors does not exist; train one with"):
        load_segmenter(tmp_path / "no.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_segmenter(tmp_path / "text.safetensors")
    model = Pix2PixHD(Pix2PixHDConfig(n_labels=2, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)))
    save_model(tmp_path / "model.safetensors", model)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not contain a scorer"):
        load_segmenter(tmp_path / "model.safetensors")


def test_tensors_that_do_not_fit_are_named(network: Segmenter, tmp_path: Path) -> None:
    file = tmp_path / "scorer.safetensors"
    save_segmenter(file, network)
    tensors, header = load_file(file), read_metadata(file)
    tensors["head.bias"] = torch.zeros(9)
    del tensors["stem.weight"]
    save_file(tensors, file, {"hdgan": json.dumps(header)})
    with pytest.raises(CheckpointError, match=r"1 missing: stem\.weight; 1 with another shape: head\.bias is \(9,\)"):
        load_segmenter(file)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scorer_training\.width is 0: give a whole number from 1"):
        SegmenterConfig(5, width=0)


def test_numbers_that_are_not_finite_are_refused(network: Segmenter, tmp_path: Path) -> None:
    with torch.no_grad():
        network.head.bias[2] = float("nan")
    save_segmenter(tmp_path / "scorer.safetensors", network)
    with pytest.raises(CheckpointError, match=r"scorer\.safetensors: head\.bias contains numbers that are NaN"):
        load_segmenter(tmp_path / "scorer.safetensors")


@pytest.mark.parametrize(("field", "value"), [("width", 10**9), ("width", 4096), ("n_labels", 10**30)])
def test_an_absurd_architecture_takes_no_memory(network: Segmenter, field: str, value: int, tmp_path: Path) -> None:
    file = tmp_path / "scorer.safetensors"
    save_segmenter(file, network)
    header = read_metadata(file)
    header["segmenter"][field] = value
    save_file(load_file(file), file, {"hdgan": json.dumps(header)})
    with pytest.raises(CheckpointError, match=r"scorer\.safetensors"):
        load_segmenter(file)
