"""The registry, and what the types of a family's runs exclude."""

from __future__ import annotations

from typing import Any

import pytest

from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import CRNLoss, CRNStage, Pix2PixLoss, Pix2PixStage, build_model
from hdgan.families.common.family import Family
from hdgan.families.registry import FAMILIES, PRESETS, AnyTrainConfig, family_of

of_each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.config.family)


@of_each_family
def test_the_parts_of_a_family_belong_together(family: Family) -> None:
    run: Any = family.train_config()
    assert type(run.model) is family.config
    assert run.loss.family == run.model.family
    assert family_of(run.model) is family
    assert all(type(PRESETS[name]()) is type(run) for name in family.presets)


def test_a_model_is_of_its_configs_family() -> None:
    config: Any = PRESETS["crn"]().model
    assert type(build_model(type(config)(n_modules=2, width=1 / 128))) is family_of(config).model


@of_each_family
@pytest.mark.parametrize(
    ("part", "value", "owner"),
    [
        ("loss", CRNLoss(), "crn"),
        ("loss", Pix2PixLoss(), "pix2pix"),
        ("stages", {"a": CRNStage()}, "crn"),
        ("stages", {"a": Pix2PixStage()}, "pix2pix"),
    ],
)
def test_a_run_takes_the_parts_of_its_family_alone(family: Family, part: str, value: Any, owner: str) -> None:
    if family.config.family == owner:
        assert getattr(family.train_config(**{part: value}), part) == value
    else:
        with pytest.raises(ConfigError, match=rf"^{part}.* is .*: give a table of "):
            family.train_config(**{part: value})


@of_each_family
def test_a_file_is_of_the_family_that_its_model_names(family: Family) -> None:
    run = family.train_config()
    plain = to_plain(run)
    assert from_plain(AnyTrainConfig, plain, "file") == run
    plain["model"]["family"] = "dcgan"
    with pytest.raises(CheckpointError, match=r"file: model\.family is 'dcgan': give pix2pixhd or crn or pix2pix"):
        from_plain(AnyTrainConfig, plain, "file")
