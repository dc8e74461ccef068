"""Augmentation of what D sees, over the steps and stages of runs: its probability, its state, its log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from hdgan.checkpoints import TRAINING_FILE, checkpoint_path, list_steps
from hdgan.errors import CheckpointError
from hdgan.sharding.world import World
from hdgan.training import AugmentConfig, TrainConfig, train
from hdgan.training.checkpoint import read_training_state, restore, save_checkpoint
from hdgan.training.dry_run import dry_run
from hdgan.training.logs import read_metrics
from hdgan.training.state import StageState
from hdgan.training.trainer import Trainer
from tests.training.test_trainer import CPU, make_inputs, make_state, make_trainer, take_step

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
FALLING = AugmentConfig(("color", "cutout"), probability=0.5, adaptive=True, target=1.0, speed=50)
"""No statistic is above this target, so the probability falls in every step."""


def test_a_run_logs_the_probability_of_each_step_and_keeps_it_from_stage_to_stage(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "run", augment=FALLING)
    train(config, console=QUIET)
    records = [record for record in read_metrics(config.out) if "lr" in record]
    assert {record["stage"] for record in records} == {"global", "enhancer", "joint"}
    assert [record["augment_p"] for record in records] == pytest.approx([0.5 - 2 / 50 * step for step in range(9)])
    assert all(-1 <= record["d_sign"] <= 1 for record in records)
    folder = checkpoint_path(config.out, list_steps(config.out)[-1])
    assert read_training_state(folder)["augmentation"][0] == pytest.approx(0.5 - 2 / 50 * 9)


@pytest.mark.parametrize("make_family_config", ["pix2pix", "pix2pixhd"], indirect=True)
def test_every_family_with_a_discriminator_trains_and_is_estimated_with_it(
    make_family_config: MakeConfig, tmp_path: Path
) -> None:
    plain = make_family_config(tmp_path / "run")
    plain = replace(plain, stages=dict(list(plain.stages.items())[-1:]))
    config = replace(plain, augment=AugmentConfig(("color", "translation", "cutout")))
    [timing], [without] = dry_run(config, QUIET), dry_run(plain, QUIET)
    assert timing.estimate.peak_bytes > without.estimate.peak_bytes
    assert train(config, console=QUIET).finished
    (record, *_) = read_metrics(config.out)
    assert "d_sign" in record
    assert "augment_p" not in record  # it is always 1
    folder = checkpoint_path(config.out, list_steps(config.out)[-1])
    assert "augmentation" not in torch.load(folder / TRAINING_FILE, weights_only=True)


@dataclass(frozen=True)
class Elsewhere(World):
    """Other processes, whose photos D takes for real or not, whatever it says of those of this process."""

    signs: float = 0.0
    place: int = 0
    """Of the statistic among the losses."""

    def mean(self, values: Tensor) -> Tensor:
        values = values.clone()
        values[self.place] = self.signs
        return values


@pytest.mark.parametrize("signs", [-1.0, 1.0])
def test_the_probability_follows_the_average_of_all_processes(
    make_config: MakeConfig, tmp_path: Path, signs: float
) -> None:
    augment = AugmentConfig(("cutout",), probability=0.5, adaptive=True, target=0.0, speed=100)
    config = make_config(tmp_path, augment=augment)
    names = ("g_gan", "g_feature_matching", "d_real", "d_fake", "d_sign", "augment_p")
    trainer = Trainer(config, make_state(config), None, Elsewhere(0, 1, CPU, signs=signs, place=names.index("d_sign")))
    assert trainer.criterion.names == names
    trainer.train_step(make_inputs(2, torch.float32))
    assert trainer.state.augmentation.probability.item() == pytest.approx(0.5 + signs * 2 / 100)


def test_a_step_with_a_probability_of_zero_has_the_losses_of_one_without(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    plain = make_config(tmp_path)
    losses = []
    for augment in (AugmentConfig(), AugmentConfig(("color", "translation", "cutout"), probability=0.0)):
        config = replace(plain, augment=augment)
        losses.append(take_step(make_trainer(config, make_state(config)), make_inputs(2, torch.float32)).losses)
    signs = losses[1].pop("d_sign")
    assert losses[1] == losses[0]
    assert -1 <= signs <= 1


def test_a_checkpoint_brings_the_probability_back(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path, augment=FALLING)
    state = make_state(config)
    state.augmentation.load((0.125, -0.75))
    folder = save_checkpoint(config.out, config, state, {})
    other = StageState(config, state.stage, CPU)
    assert other.augmentation.probability == 0.5
    restore(folder, other, read_training_state(folder))
    assert other.augmentation.state() == {"augmentation": (0.125, -0.75)}


def test_checkpoints_of_other_augmentations(make_config: MakeConfig, tmp_path: Path) -> None:
    """A resume may turn the augmentation on or off; files that hold no probability are refused."""
    config = make_config(tmp_path, augment=FALLING)
    fixed = replace(config, augment=AugmentConfig(("cutout",), probability=0.75))
    state = make_state(config)
    folder = save_checkpoint(config.out, config, state, {})
    without = StageState(fixed, state.stage, CPU)
    restore(folder, without, read_training_state(folder))
    assert without.augmentation.probability == 0.75
    content = torch.load(folder / TRAINING_FILE, weights_only=True)
    torch.save({name: part for name, part in content.items() if name != "augmentation"}, folder / TRAINING_FILE)
    begun = StageState(config, state.stage, CPU)
    restore(folder, begun, read_training_state(folder))
    assert begun.augmentation.probability == 0.5
    torch.save(content | {"augmentation": (1.5, 0.0)}, folder / TRAINING_FILE)
    with pytest.raises(CheckpointError, match=r"augmentation\[0\] is 1\.5: give a number from 0 to 1"):
        read_training_state(folder)
