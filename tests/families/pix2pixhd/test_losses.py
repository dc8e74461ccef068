"""pix2pixHD's perceptual loss by a scorer's features; test_trainer.py has the rest of its step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan.errors import ConfigError
from hdgan.families import Pix2PixHDLoss
from hdgan.losses import PerceptualLoss
from hdgan.models.segmenter import Segmenter, SegmenterConfig, load_segmenter, save_segmenter
from hdgan.training import TrainConfig, load_config, train
from hdgan.training.logs import read_metrics


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_segmenter(tmp_path / "scorer.safetensors", Segmenter(SegmenterConfig(4, width=2)))
    return tmp_path / "scorer.safetensors"


def test_the_loss_compares_the_scorers_features(scorer: Path) -> None:
    network = Pix2PixHDLoss(network=str(scorer)).load_perceptual()
    assert network is not None
    fake, real = torch.rand(2, 3, 16, 32).requires_grad_(), torch.rand(2, 3, 16, 32)
    loss = PerceptualLoss(network)(fake, real)
    segmenter, weights = load_segmenter(scorer), (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    pairs = zip(weights, segmenter.features(fake), segmenter.features(real), strict=True)
    torch.testing.assert_close(loss, sum(weight * (a - b).abs().mean() for weight, a, b in pairs))
    loss.backward()
    assert fake.grad is not None
    assert bool(fake.grad.abs().sum() > 0)
    assert Pix2PixHDLoss(vgg=0.0).load_perceptual() is None


def test_random_features_need_no_file_and_repeat() -> None:
    before = torch.random.get_rng_state()
    networks = [Pix2PixHDLoss(network="random").load_perceptual() for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    image = torch.rand(1, 3, 32, 64)
    first, again = (network(image) for network in networks if network is not None)
    assert [feature.shape[1:] for feature in first] == [
        (16, 32, 64),
        (32, 16, 32),
        (64, 8, 16),
        (128, 4, 8),
        (128, 2, 4),
    ]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    assert networks[0] is not None
    assert all(not torch.allclose(a, b, atol=0.05) for a, b in zip(first, networks[0](blurred), strict=True))


def test_a_run_trains_with_them(make_config: Callable[..., TrainConfig], scorer: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", loss=Pix2PixHDLoss(network=str(scorer)))
    assert train(config, console=Console(quiet=True)).finished
    losses = [record["g_vgg"] for record in read_metrics(config.out) if "g_vgg" in record]
    assert len(losses) == 9
    assert all(loss > 0 for loss in losses)


def test_layers_weigh_as_the_options_say(make_config: Callable[..., TrainConfig], scorer: Path, tmp_path: Path) -> None:
    losses = []
    for layers in ((1.0, 0.0, 0.0, 0.0, 0.0), (3.0, 0.0, 0.0, 0.0, 0.0)):
        config = make_config(tmp_path / f"run{layers[0]}", loss=Pix2PixHDLoss(network=str(scorer), vgg_layers=layers))
        train(replace(config, stages={"global": config.stages["global"]}), console=Console(quiet=True))
        losses.append(next(record["g_vgg"] for record in read_metrics(config.out) if "g_vgg" in record))
        assert load_config(config.out).loss == config.loss
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
    with pytest.raises(ConfigError, match=r"loss\.vgg_layers\[1\] is -1\.0: give a number from 0"):
        Pix2PixHDLoss(vgg_layers=(1.0, -1.0, 0.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match=r"loss\.vgg_layers is .*: at least one weight must not be 0"):
        Pix2PixHDLoss(vgg_layers=(0.0, 0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ConfigError, match=r"loss\.vgg_layers 1 0 0 0 0 has no effect with loss\.vgg 0: .* 0\.03125 "):
        Pix2PixHDLoss(vgg=0.0, vgg_layers=(1.0, 0.0, 0.0, 0.0, 0.0))


def test_what_does_not_go_with_a_scorer_is_refused(scorer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"imagenet_normalisation has no effect with loss\.network .*: change that"):
        Pix2PixHDLoss(network=str(scorer), imagenet_normalisation=True)
    with pytest.raises(ConfigError, match=r"loss\.imagenet_normalisation has no effect with loss\.vgg 0"):
        Pix2PixHDLoss(vgg=0.0, imagenet_normalisation=True)
    with pytest.raises(ConfigError, match=r"loss\.network .*no\.safetensors does not exist: give vgg19"):
        Pix2PixHDLoss(network=str(tmp_path / "no.safetensors")).load_perceptual()
