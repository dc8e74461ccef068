"""The stages laid out in steps, and the learning rate in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdgan.errors import ConfigError
from hdgan.families import Pix2PixHDStage, Pix2PixHDTrainConfig
from hdgan.training.logs import read_metrics
from hdgan.training.schedule import plan, stage_at


def test_stages_follow_one_another_in_steps() -> None:
    stages = {
        "a": Pix2PixHDStage(epochs=2.5, batch_size=4),  # 25 pictures: the last step is not cut
        "none": Pix2PixHDStage(epochs=0),
        "b": Pix2PixHDStage(images=9, epochs=1000, batch_size=3),
    }
    a, b = plan(Pix2PixHDTrainConfig(stages=stages), dataset_size=10)
    assert (a.name, a.first_step, a.steps, a.last_step) == ("a", 0, 7, 7)
    assert (b.name, b.first_step, b.steps, b.last_step) == ("b", 7, 3, 10)
    assert [stage_at([a, b], step) for step in (0, 6, 7, 9, 10)] == [a, a, b, b, None]


@pytest.mark.parametrize("stages", [{}, {"a": Pix2PixHDStage(epochs=0)}], ids=["none", "no length"])
def test_a_run_without_stages_is_refused(stages: dict[str, Pix2PixHDStage]) -> None:
    with pytest.raises(ConfigError, match="no stages"):
        plan(Pix2PixHDTrainConfig(stages=stages), 10)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (0.5, [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (1.0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_learning_rate_is_constant_then_falls_linearly(decay: float, expected: list[float]) -> None:
    (stage,) = plan(
        Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(images=20, batch_size=2, decay=decay, lr=3e-4)}), 1
    )
    rates = [stage.learning_rate(step) for step in range(stage.steps)]
    assert rates == pytest.approx([3e-4 * factor for factor in expected])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "cosine", "decay": 0.4}, [1, 1, 1, 1, 1, 1, 1, 0.853553, 0.5, 0.146447]),
        ({"schedule": "constant", "decay": 1.0}, [1] * 10),
        ({"warmup": 0.5, "decay": 0.0}, [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]),
        ({"warmup": 0.3, "decay": 0.5}, [1 / 3, 2 / 3, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"warmup": 1.0, "schedule": "constant"}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
    ],
)
def test_schedules_and_warm_up(options: dict[str, Any], expected: list[float]) -> None:
    config = Pix2PixHDStage(images=20, batch_size=2, lr=3e-4, lr_d=6e-4, **options)
    (stage,) = plan(Pix2PixHDTrainConfig(stages={"a": config}), 1)
    for network, lr in (("g", 3e-4), ("d", 6e-4)):
        rates = [stage.learning_rate(step, network) for step in range(stage.steps)]  # type: ignore[arg-type]
        assert rates == pytest.approx([lr * share for share in expected], rel=1e-5)
    (same,) = plan(Pix2PixHDTrainConfig(stages={"a": replace(config, lr_d=None)}), 1)
    assert all(same.learning_rate(step, "d") == stage.learning_rate(step) for step in range(stage.steps))


def test_metrics_record_the_learning_rate_of_the_schedule(run: Path) -> None:
    rates = [record["lr"] for record in read_metrics(run) if "lr" in record]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4 * 2 / 3] * 3)
