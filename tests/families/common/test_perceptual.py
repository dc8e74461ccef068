"""Which network a perceptual loss takes its features of."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hdgan.checkpoints import MODEL_FILE, checkpoint_path
from hdgan.config.serialization import from_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import CRNLoss, Pix2PixHDLoss, Pix2PixLoss
from hdgan.losses import LAYER_WEIGHTS
from hdgan.training import TrainConfig, train
from hdgan.training import dry_run as dry_run_module
from hdgan.training.dry_run import dry_run
from hdgan.training.logs import read_metrics
from tests.models.test_programs import Levels, write_program, write_script

FILE = Path("weights")
QUIET = Console(quiet=True)
MakeConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize("network", [{"network_weights": FILE}, {"network": "random"}])
def test_a_network_without_its_loss_is_refused(network: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" has no effect with loss\.vgg 0: change that, or set this to "):
        Pix2PixHDLoss(vgg=0.0, **network)


@pytest.mark.parametrize("loss", [Pix2PixHDLoss, CRNLoss])
def test_weights_without_effect_are_refused(loss: type[Pix2PixHDLoss | CRNLoss]) -> None:
    for network in ("random", "scorer.safetensors", "n.pt2"):
        with pytest.raises(ConfigError, match=r"weights applies only to vgg19 or a network of timm: give "):
            loss(network=network, network_weights=FILE)
    assert loss(network="timm:resnet18", network_weights=FILE).network_weights == FILE


@pytest.mark.parametrize("network", ["no", "no.pt2", "no.safetensors"])
def test_a_file_that_does_not_exist_is_refused(network: str) -> None:
    with pytest.raises(ConfigError, match=rf"loss\.network {network} does not exist: give vgg19, timm:NAME, "):
        CRNLoss(network=network).load_perceptual()


def test_what_does_not_go_with_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.network timm:resnet18 has no effect with loss\.vgg 0"):
        Pix2PixHDLoss(vgg=0.0, network="timm:resnet18")
    with pytest.raises(ConfigError, match=r"imagenet_normalisation has no effect with loss\.network n\.pt2"):
        Pix2PixHDLoss(network="n.pt2", imagenet_normalisation=True)
    assert CRNLoss(network="n.pt2").imagenet_normalisation  # its default, of VGG19 alone
    with pytest.raises(ConfigError, match=r"imagenet_normalisation=False has no effect with loss\.network random"):
        CRNLoss(network="random", imagenet_normalisation=False)


def test_the_usual_weights_suit_any_number_of_features() -> None:
    loss = Pix2PixHDLoss(network="n.pt2")
    assert loss.layer_weights(5) == LAYER_WEIGHTS
    assert loss.layer_weights(2) == (1 / 4, 1.0)
    assert loss.layer_weights(7) == (1 / 128, 1 / 64, *LAYER_WEIGHTS)
    loss = replace(loss, vgg_layers=(3.0, 1.0))
    assert loss.layer_weights(2) == (3.0, 1.0)
    with pytest.raises(ConfigError, match=r"vgg_layers is \(3\.0, 1\.0\), but loss\.network n\.pt2 has 4 features:"):
        loss.layer_weights(4)


def test_the_file_of_a_network() -> None:
    assert Pix2PixHDLoss().network_file is None
    assert Pix2PixHDLoss(network="s.safetensors").network_file == Path("s.safetensors")
    assert Pix2PixHDLoss(network="random").network_file is None
    assert CRNLoss(network="n.pt2").network_file == Path("n.pt2")
    assert CRNLoss(network="timm:resnet18").network_file is None
    assert Pix2PixLoss().network_file is None


@pytest.mark.parametrize("loss", [Pix2PixHDLoss, CRNLoss])
def test_options_of_earlier_versions_are_read(loss: type[Pix2PixHDLoss | CRNLoss]) -> None:
    plain = {"network": "vgg19", "scorer": None, "vgg_weights": None}
    assert from_plain(loss, plain, "file") == loss()
    assert from_plain(loss, plain | {"scorer": "random"}, "file") == loss(network="random")
    assert from_plain(loss, plain | {"vgg_weights": "weights"}, "file") == loss(network_weights=FILE)
    timm = {"network": "timm:resnet18", "network_weights": "weights"}
    assert from_plain(loss, plain | timm, "file") == loss(network="timm:resnet18", network_weights=FILE)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_script(tmp_path / "network.pt", Levels())


@pytest.fixture
def with_program(family_configs: dict[str, MakeConfig], program: Path) -> MakeConfig:
    """A run of one stage of a family, whose loss compares the two features of a program."""

    def make(family: str, out: Path, steps: int = 4, **options: Any) -> TrainConfig:
        config = family_configs[family](out, images=2 * steps)
        (last,) = list(config.stages)[-1:]
        loss = {"pix2pixhd": Pix2PixHDLoss, "crn": CRNLoss}[family](network=str(program))
        stage = replace(config.stages[last], images=2 * steps, decay=0.0)
        return replace(config, loss=loss, stages={last: stage}, **options)

    return make


@pytest.mark.parametrize("family", ["pix2pixhd", "crn"])
def test_a_run_compares_its_features(family: str, with_program: MakeConfig, tmp_path: Path) -> None:
    whole, halves = with_program(family, tmp_path / "whole"), with_program(family, tmp_path / "halves")
    train(whole, console=QUIET)
    train(with_program(family, halves.out, 2), console=QUIET)
    train(halves, resume=True, console=QUIET)
    weights = [load_file(checkpoint_path(out, 4) / MODEL_FILE) for out in (whole.out, halves.out)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    record = next(record for record in read_metrics(whole.out) if "lr" in record)
    names = {"pix2pixhd": ["g_vgg"], "crn": ["l1_image", "l1_feature_1", "l1_feature_2"]}[family]
    assert all(record[name] > 0 for name in names)
    assert "l1_feature_3" not in record


def test_a_resume_needs_the_same_network(with_program: MakeConfig, program: Path, tmp_path: Path) -> None:
    config = with_program("pix2pixhd", tmp_path / "run", 1)
    train(config, console=QUIET)
    copied = tmp_path / "copied.pt"
    shutil.copy(program, copied)
    longer = with_program("pix2pixhd", config.out, 2)
    assert train(replace(longer, loss=Pix2PixHDLoss(network=str(copied))), resume=True, console=QUIET).finished
    write_script(program, Levels())
    complaint = r"loss\.network is not the one that .*step-0*2 was trained with \(SHA-256 .{8}… instead of .{8}…"
    with pytest.raises(CheckpointError, match=complaint):
        train(with_program("pix2pixhd", config.out, 3), resume=True, console=QUIET)


def test_a_program_of_one_shape_is_tried_before_training(with_program: MakeConfig, tmp_path: Path) -> None:
    fixed = write_program(tmp_path / "fixed.pt2", Levels())  # for two images of 32x16
    config = with_program("pix2pixhd", tmp_path / "run", 1)
    config = replace(config, loss=Pix2PixHDLoss(network=str(fixed)))
    assert train(config, console=QUIET).finished
    (name,) = config.stages
    stage = replace(config.stages[name], micro_batch=1)
    other = replace(config, out=tmp_path / "other", stages={name: stage})
    with pytest.raises(ConfigError, match=r"fixed\.pt2 cannot take an image of 32x16: .* a batch of 1 and this device"):
        train(other, console=QUIET)
    assert not other.out.exists() or not list(other.out.glob("checkpoints/*"))


def test_a_dry_run_estimates_a_program(
    with_program: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run_module, "TIMED_STEPS", 1)
    estimates = {}
    for name in ("with", "without"):
        config = replace(with_program("pix2pixhd", tmp_path / "run"), recompute="auto")
        if name == "without":
            config = replace(config, loss=Pix2PixHDLoss(vgg=0.0))
        (timing,) = dry_run(config, Console(file=io.StringIO(), width=160))
        estimates[name] = timing.estimate
    # The two features of a batch, after and before their activations at the least.
    assert estimates["with"].saved_bytes - estimates["without"].saved_bytes >= 4 * 2 * (4 * 16 * 32 + 6 * 8 * 16)


def test_bfloat16_trains_with_a_program(with_program: MakeConfig, tmp_path: Path) -> None:
    config = with_program("crn", tmp_path / "run", 1, precision="bfloat16", memory_format="channels_last")
    assert train(config, console=QUIET).finished


def test_a_network_without_weights_is_for_dry_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = Levels()
    monkeypatch.setattr("hdgan.families.common.perceptual.untrained_timm", lambda name: network)
    said: list[str] = []
    assert CRNLoss(network="timm:net").load_perceptual(on_missing=said.append) is network
    missing = CRNLoss(network="timm:net", network_weights=tmp_path / "no.pth")
    assert missing.load_perceptual(on_missing=said.append) is network
    assert said[0] == "a run first downloads timm's weights of net, unless they are in its cache"
    assert said[1] == f"the weights {tmp_path / 'no.pth'} of timm's net do not exist"


def test_networks_take_rgb_or_grey_photos() -> None:
    for channels in (1, 3):
        Pix2PixHDLoss().check_photos(channels)
        CRNLoss().check_photos(channels)
    Pix2PixHDLoss(vgg=0.0).check_photos(5)
    Pix2PixLoss().check_photos(5)
    with pytest.raises(ConfigError, match=r"RGB or grey images, but the photos have 5 channels: set loss\.vgg 0"):
        Pix2PixHDLoss().check_photos(5)
    with pytest.raises(ConfigError, match=r"but the photos have 2 channels: train a model of another family"):
        CRNLoss().check_photos(2)
