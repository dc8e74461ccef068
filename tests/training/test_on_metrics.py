"""A function of the user's gets the records of a run while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hdgan.checkpoints import list_steps
from hdgan.training import TrainConfig, train
from hdgan.training.logs import read_metrics

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)
pytestmark = pytest.mark.usefixtures("plain_report")


def test_it_gets_what_the_run_records(make_config: MakeConfig, tmp_path: Path) -> None:
    calls: list[dict[str, object]] = []
    config = make_config(tmp_path / "run", images=2)
    train(config, console=QUIET, on_metrics=lambda *call: calls.append({"step": call[0], "stage": call[1], **call[2]}))
    assert calls == read_metrics(config.out)
    assert [call["step"] for call in calls if "g_gan" in call] == [1, 2, 3]
    assert any("val_l1" in call for call in calls)


def test_what_it_raises_ends_the_run_at_its_latest_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    def stop(step: int, stage: str, values: object) -> None:
        if step == 2:
            raise LookupError(f"enough at {step}")

    config = make_config(tmp_path / "run", images=2)
    config = replace(config, log=replace(config.log, checkpoint_every=1))
    with pytest.raises(LookupError, match="enough at 2"):
        train(config, console=QUIET, on_metrics=stop)
    assert list_steps(config.out) == [1]
    assert train(config, resume=True, console=QUIET).finished
