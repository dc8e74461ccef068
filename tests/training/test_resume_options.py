"""Options of a resume that take the effect from others of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hdgan.commands import train as command
from hdgan.commands.train import train_command
from hdgan.config.serialization import to_plain
from hdgan.errors import ConfigError
from hdgan.families import Pix2PixHDLoss
from hdgan.families.common.augmentation import AugmentConfig
from hdgan.files.json import write_json
from hdgan.losses import LAYER_WEIGHTS
from hdgan.training import TrainConfig, train
from hdgan.training.run_folder import CONFIG_FILE, load_config

MakeConfig = Callable[..., TrainConfig]
Resumed = Callable[..., Pix2PixHDLoss]


def test_what_has_no_effect_any_more_gives_way(make_config: MakeConfig, tmp_path: Path) -> None:
    loss = Pix2PixHDLoss(network="random", vgg_layers=(1.0, 1.0, 1.0, 0.5, 0.25), r1=1.0, r1_every=2)
    augment = AugmentConfig(policy=("color",), adaptive=True, target=0.4)
    config = make_config(tmp_path / "run", loss=loss, augment=augment)
    train(config, console=Console(quiet=True))
    last = list(config.stages)[-1]
    longer = str((config.stages[last].images or 0) + config.stages[last].batch_size)
    arguments = ["--resume", str(config.out), f"--stages.{last}.images", longer]
    assert train_command([*arguments, "--loss.vgg", "0", "--loss.r1", "0", "--augment.policy"]) == 0
    resumed = load_config(config.out)
    assert to_plain(resumed.loss) == to_plain(Pix2PixHDLoss(vgg=0.0))
    assert resumed.augment == AugmentConfig()


FINE = (1.0, 1.0, 1.0, 0.5, 0.25)
WEIGHTS = Path("weights.pth")
VGG, TIMM = Pix2PixHDLoss(network_weights=WEIGHTS), Pix2PixHDLoss(network="timm:resnet18", network_weights=WEIGHTS)


@pytest.fixture
def resumed(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resumed:
    """The losses with which `hdgan-train --resume` would train on; nothing is trained."""

    def resume(loss: Pix2PixHDLoss, *arguments: str) -> Pix2PixHDLoss:
        write_json(tmp_path / CONFIG_FILE, make_config(tmp_path, loss=loss))
        trained: list[TrainConfig] = []

        def dry_run(config: TrainConfig, *_: object, **__: object) -> None:
            trained.append(config)

        monkeypatch.setattr(command, "dry_run", dry_run)
        assert train_command(["--resume", str(tmp_path), "--dry-run", *arguments]) == 0
        assert isinstance(trained[0].loss, Pix2PixHDLoss)
        return trained[0].loss

    return resume


@pytest.mark.parametrize(
    ("loss", "arguments", "expected"),
    [
        (VGG, ["--loss.network", "random"], Pix2PixHDLoss(network="random")),
        (VGG, ["--loss.network=timm:resnet18"], Pix2PixHDLoss(network="timm:resnet18")),
        (VGG, ["--loss.network", "timm:resnet18", "--loss.network-weights", "weights.pth"], TIMM),
        (VGG, ["--loss.network", "vgg19"], VGG),
        (VGG, ["--loss.vgg", "3"], Pix2PixHDLoss(vgg=3.0, network_weights=WEIGHTS)),
        (TIMM, ["--loss.network", "timm:resnet34"], Pix2PixHDLoss(network="timm:resnet34")),
        (Pix2PixHDLoss(network="n.pt2", vgg_layers=(3.0, 1.0)), ["--loss.network", "vgg19"], Pix2PixHDLoss()),
        (
            Pix2PixHDLoss(network="n.pt2", vgg_layers=(3.0, 1.0), network_digest="0" * 64),
            ["--loss.network", "moved/n.pt2"],
            Pix2PixHDLoss(network="moved/n.pt2", vgg_layers=(3.0, 1.0)),
        ),
        (
            Pix2PixHDLoss(network="n.pt2", vgg_layers=(3.0, 1.0)),
            ["--loss.network", "timm:a", "--loss.vgg-layers", "3", "1"],
            Pix2PixHDLoss(network="timm:a", vgg_layers=(3.0, 1.0)),
        ),
        (
            Pix2PixHDLoss(network="random", vgg_layers=FINE),
            ["--loss.network", "s.safetensors"],
            Pix2PixHDLoss(network="s.safetensors", vgg_layers=FINE),
        ),
        (
            Pix2PixHDLoss(network="random", vgg_layers=FINE),
            ["--loss.network", "timm:resnet18"],
            Pix2PixHDLoss(network="timm:resnet18", vgg_layers=LAYER_WEIGHTS),
        ),
        (
            Pix2PixHDLoss(vgg=0.0),
            ["--loss.network", "random", "--loss.vgg", "3"],
            Pix2PixHDLoss(vgg=3.0, network="random"),
        ),
    ],
)
def test_what_suits_only_another_network_gives_way(
    resumed: Resumed, loss: Pix2PixHDLoss, arguments: list[str], expected: Pix2PixHDLoss
) -> None:
    assert to_plain(resumed(loss, *arguments)) == to_plain(expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--loss.network-weights", "weights.pth"], r"--loss\.network-weights weights\.pth applies only to vgg19 or"),
        (["--loss.vgg-layers", "3", "1"], r"--loss\.vgg-layers is \(3\.0, 1\.0\): give a list of 5"),
    ],
)
def test_what_is_typed_does_not_give_way(resumed: Resumed, arguments: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resumed(VGG, "--loss.network", "random", *arguments)
