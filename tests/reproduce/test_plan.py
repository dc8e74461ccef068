"""Rows differ in what their table names, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.data.config import SizeConfig
from hdgan.reproduce.plan import ROWS, TABLES, training_options, typed
from hdgan.reproduce.scales import SCALES, Scale
from hdgan.training import TrainConfig
from hdgan.training.loop import TrainResult
from hdgan.training.schedule import plan

FILE = Path("perceptual.safetensors")
PERCEPTUAL_LOSS = {"loss.vgg", "loss.vgg_layers", "loss.network"}


def config(row: str, scale: Scale = SCALES["small"]) -> TrainConfig:
    """What `hdgan train` makes of the row's preset and options."""
    options = training_options(scale, row, 3, {"loss.network": FILE}, 5)
    trained: list[TrainConfig] = []

    def keep(config: TrainConfig, resume: bool) -> TrainResult:
        trained.append(config)
        return TrainResult(finished=True, step=1, total_steps=1, report=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hdgan.commands.train.train", keep)
        assert main(["train", ROWS[row].preset, *typed(options)]) == 0
    return trained[0]


def differences(one: Mapping[str, Any], other: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{path}{key}.")
        elif a != b:
            yield f"{path}{key}"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("gan-fm", PERCEPTUAL_LOSS),
        ("gan", PERCEPTUAL_LOSS | {"loss.feature_matching"}),
        ("one-d", {f"stages.{stage}.n_scales" for stage in ("global", "enhancer", "joint")}),
        ("no-instances", {"model.instances"}),
        ("features", {"model.feature_channels"}),
    ],
)
def test_an_ablation_changes_what_its_table_names(row: str, expected: set[str]) -> None:
    assert set(differences(to_plain(config(row)), to_plain(config("pix2pixhd")))) == expected


def test_g1_alone_trains_on_the_full_resolution_only() -> None:
    alone, whole = config("g1"), config("pix2pixhd")
    assert (alone.model, alone.loss) == (whole.model, whole.loss)
    (stage,), joint = plan(alone, 1), whole.stages["joint"]
    assert (stage.name, stage.config.n_enhancers, joint.n_enhancers) == ("global", 0, 1)
    assert (stage.config.size, stage.config.n_scales) == (joint.size, joint.n_scales)
    assert (joint.size, joint.n_scales) == (SizeConfig(width=SCALES["small"].width, height=SCALES["small"].height), 3)


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
@pytest.mark.parametrize("row", ROWS)
def test_all_rows_see_the_same_pictures_at_the_same_pace(scale: Scale, row: str) -> None:
    one, whole = config(row, scale), config("pix2pixhd", scale)
    stages, theirs = plan(one, scale.train), plan(whole, scale.train)
    assert stages[-1].last_step == theirs[-1].last_step == scale.steps
    assert sum(stage.config.images or 0 for stage in stages) == scale.images
    rates = [[part[-1].learning_rate(step) for step in range(part[-1].steps)] for part in (stages, theirs)]
    last = scale.decay // scale.batch_size
    assert rates[0][-last:] == pytest.approx(rates[1][-last:])
    assert {stage.config.lr for stage in stages} == {scale.lr}
    assert (one.data, one.seed, one.log, one.optim) == (whole.data, whole.seed, whole.log, whole.optim)


def test_perceptual_losses_take_the_network_of_the_plan() -> None:
    compare = {row for row in ROWS if getattr(config(row).loss, "compares_features", False)}
    assert compare == ROWS.keys() - {"pix2pix", "gan", "gan-fm"}
    assert {getattr(config(row).loss, "network", None) for row in compare} == {str(FILE)}


def test_pix2pixhd_has_noise_and_weighs_fine_features() -> None:
    for row in ROWS.keys() - {"pix2pix", "crn"}:
        one = to_plain(config(row))
        assert one["model"]["generator"]["noise"] == 0.3
        assert one["loss"]["vgg"] == 0 or one["loss"]["vgg_layers"] == [1, 1, 1, 0.5, 0.25]


def test_the_scale_chooses_the_precision() -> None:
    assert all(config("crn", scale).precision == scale.precision for scale in SCALES.values())


def test_tables_name_rows_that_there_are() -> None:
    for table in TABLES:
        assert set(table.rows) <= ROWS.keys()
        assert set(table.tested) <= set(table.rows)
        assert set(table.claims) <= set(combinations(table.tested, 2))
    assert {row for table in TABLES for row in table.rows} == ROWS.keys()


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_scales_hold_out_enough_to_score(scale: Scale) -> None:
    assert scale.test >= 32
    assert all(count % scale.batch_size == 0 for count in (scale.coarse, scale.enhancer, scale.joint, scale.decay))
