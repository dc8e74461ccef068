"""Options of a resume that take the effect from others of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from hdgan.commands.train import train_command
from hdgan.config.serialization import to_plain
from hdgan.families import Pix2PixHDLoss
from hdgan.families.common.augmentation import AugmentConfig
from hdgan.training import TrainConfig, train
from hdgan.training.run_folder import load_config

MakeConfig = Callable[..., TrainConfig]


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
