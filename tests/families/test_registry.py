from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from hdgan.errors import ConfigError
from hdgan.families import AnyModelConfig, ModelConfig
from hdgan.families.registry import FAMILIES, AnyLoss
from hdgan.training import TrainConfig

CONFIGS: tuple[type[ModelConfig], ...] = get_args(AnyModelConfig) or (AnyModelConfig,)


def test_every_family_is_in_every_table() -> None:
    assert set(FAMILIES) == set(CONFIGS)
    losses = get_args(AnyLoss) or (AnyLoss,)
    assert {family.loss for family in FAMILIES.values()} == set(losses)
    for config, family in FAMILIES.items():
        assert config().family == family.loss().family  # type: ignore[call-arg]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_a_run_takes_its_familys_losses_alone(config: type[ModelConfig]) -> None:
    model, family = config(), FAMILIES[config]  # type: ignore[call-arg]
    assert TrainConfig(out=Path("x"), model=model, loss=family.loss()).family is family  # type: ignore[arg-type]
    for other in FAMILIES.values():
        if other is not family:
            with pytest.raises(ConfigError, match=f"losses are those of {other.loss().family}, but the model is a"):
                TrainConfig(out=Path("x"), model=model, loss=other.loss())  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [c for c in CONFIGS if not c().growth], ids=lambda config: config.__name__)  # type: ignore[call-arg]
def test_only_pix2pixhd_grows(config: type[ModelConfig]) -> None:
    with pytest.raises(ConfigError, match=r"1 enhancer, but the models of the family .* have none"):
        config().grown(1, 2)  # type: ignore[call-arg]
