"""Configs that cannot work, the stages laid out in steps, and the learning rate in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdgan.config.options import typed_as
from hdgan.config.serialization import from_plain, to_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.errors import ConfigError
from hdgan.families import DiscriminatorConfig, GeneratorConfig, Pix2PixHDConfig, Pix2PixHDLoss
from hdgan.training import PRESETS, LogConfig, OptimConfig, StageConfig, TrainConfig
from hdgan.training.logs import read_metrics
from hdgan.training.schedule import plan, stage_at


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ({"a": StageConfig(batch_size=0)}, r"stages\.a\.batch_size is 0"),
        ({"a": StageConfig(n_scales=0)}, r"stages\.a\.n_scales is 0"),
        ({"a": StageConfig(lr=-1e-4)}, r"stages\.a\.lr is -0\.0001"),
        ({"a": StageConfig(epochs=-1)}, r"stages\.a\.epochs is -1"),
        ({"a": StageConfig(images=-5)}, r"stages\.a\.images is -5"),
        ({"a": StageConfig(decay=1.5)}, r"stages\.a\.decay is 1\.5"),
        ({"a": StageConfig(generator="enhancer")}, r"stage a trains only the enhancer but has none"),
        ({"a": StageConfig(n_enhancers=1), "b": StageConfig()}, r"stage b has 0 enhancers .* a run only grows"),
        ({"a": StageConfig(n_scales=3), "b": StageConfig()}, r"stage b has 0 enhancers and 2 scales, fewer"),
    ],
)
def test_stages_that_cannot_work_are_refused(stages: dict[str, StageConfig], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TrainConfig(stages=stages)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: TrainConfig(precision="fp16"), r"precision is 'fp16': give float32 or bfloat16"),
        (lambda: Pix2PixHDLoss(gan="hinge"), r"loss\.gan is 'hinge': give lsgan or vanilla"),
        (lambda: TrainConfig(stages={"a": StageConfig(generator="none")}), r"stages\.a\.generator is 'none'"),
        (
            lambda: Pix2PixHDConfig(generator=GeneratorConfig(pad_mode="wrap")),
            r"model\.generator\.pad_mode is 'wrap'",
        ),
        (lambda: TrainConfig(out="runs/x"), r"out is 'runs/x': give a path"),
        (lambda: TrainConfig(out=Path("a\0b")), r"out is .*: give a path"),
        (lambda: TrainConfig(threads=10**6), "threads is 1000000: give a whole number from 1 to 1024"),
        (lambda: TrainConfig(seed=10**5000), "seed is a number of more than 4999 digits: give a whole number"),
        (lambda: TrainConfig(seed=True), "seed is True: give a whole number"),
        (lambda: TrainConfig(log=3), "log is 3: give a table of LogConfig"),
        (
            lambda: TrainConfig(stages={"a": StageConfig(epochs=float("inf"))}),
            r"stages\.a\.epochs is inf: give a number from 0",
        ),
        (
            lambda: TrainConfig(stages={"a": StageConfig(size=SizeConfig(width=0))}),
            r"stages\.a\.size\.width is 0: give a whole number from 1",
        ),
        (lambda: DataConfig(workers=-1), r"data\.workers is -1: give a whole number from 0"),
        (lambda: Pix2PixHDLoss(vgg_layers=(1, 1, 1, 1, float("nan"))), r"loss\.vgg_layers\[4\] is nan: give a number"),
        (lambda: Pix2PixHDLoss(vgg_layers=(1, 2)), r"loss\.vgg_layers is \(1, 2\): give a list of 5"),
    ],
)
def test_values_are_checked_in_python_too(make: Callable[[], object], complaint: str) -> None:
    """Else a run could write a config that its resume refuses."""
    with pytest.raises(ConfigError, match=complaint):
        make()


def test_options_are_named_as_they_are_typed() -> None:
    with typed_as(), pytest.raises(ConfigError, match=r"^--stages\.a\.batch-size is 0: give a whole number from 1"):
        TrainConfig(stages={"a": StageConfig(batch_size=0)})


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_betas_are_below_one(name: str) -> None:
    for value in (1.0, -0.1):
        with pytest.raises(ConfigError, match=rf"optim\.{name} is {value}: give a number from 0 and below 1"):
            TrainConfig(optim=OptimConfig(**{name: value}))
    assert TrainConfig(optim=OptimConfig(beta1=0.0)).optim.beta1 == 0


@pytest.mark.parametrize(
    ("family", "options", "complaint"),
    [
        ("pix2pix", {"n_scales": 3}, r"stages\.global\.n_scales is 3, but the models of the family pix2pix have no"),
        ("crn", {"n_scales": 1}, r"stages\.coarse\.n_scales is 1, but the models of the family crn have no"),
        ("pix2pix", {"n_enhancers": 1}, "1 enhancer, but the models of the family pix2pix have none"),
        ("pix2pix", {"generator": "enhancer"}, r"stages\.global\.generator is enhancer, .*: set it to all"),
        ("crn", {"generator": "enhancer"}, r"set stages\.coarse\.n_enhancers 1"),
    ],
)
def test_stages_that_a_family_has_not(family: str, options: dict[str, Any], complaint: str) -> None:
    config = PRESETS[family]()
    name, stage = next(iter(config.stages.items()))
    with pytest.raises(ConfigError, match=complaint):
        replace(config, stages={name: replace(stage, **options)})


def test_a_pool_is_for_families_with_a_discriminator() -> None:
    pool = OptimConfig(pool_size=50)
    assert replace(PRESETS["pix2pix"](), optim=pool).optim == pool
    with pytest.raises(ConfigError, match=r"optim\.pool_size is 50, but the models of the family crn have no disc"):
        replace(PRESETS["crn"](), optim=pool)


@pytest.mark.parametrize("name", ["metrics_every", "samples_every", "checkpoint_every", "keep", "val_images"])
def test_counts_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=f"log.{name} is 0"):
        TrainConfig(log=replace(LogConfig(), **{name: 0}))


def test_feature_matching_needs_the_discriminators_features() -> None:
    model = replace(TrainConfig().model, discriminator=DiscriminatorConfig(intermediate_features=False))
    with pytest.raises(ConfigError, match="feature matching needs"):
        TrainConfig(model=model)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip_and_have_stages(name: str) -> None:
    config = PRESETS[name]()
    assert from_plain(TrainConfig, to_plain(config), "test") == config
    assert plan(config, 10)


def test_presets_follow_the_paper() -> None:
    first, second, third = PRESETS["cityscapes-1024p"]().stages.values()
    assert (first.n_enhancers, second.n_enhancers, third.n_enhancers) == (0, 1, 1)
    assert (first.generator, second.generator, third.generator) == ("all", "enhancer", "all")
    assert (second.n_scales, second.epochs, second.epochs + third.epochs) == (3, 10, 100)
    assert second.decay == 0
    assert third.decay * third.epochs == pytest.approx(50)


def test_stages_follow_one_another_in_steps() -> None:
    stages = {
        "a": StageConfig(epochs=2.5, batch_size=4),  # 25 pictures: the last step is not cut
        "none": StageConfig(epochs=0),
        "b": StageConfig(images=9, epochs=1000, batch_size=3),
    }
    a, b = plan(TrainConfig(stages=stages), dataset_size=10)
    assert (a.name, a.first_step, a.steps, a.last_step) == ("a", 0, 7, 7)
    assert (b.name, b.first_step, b.steps, b.last_step) == ("b", 7, 3, 10)
    assert [stage_at([a, b], step) for step in (0, 6, 7, 9, 10)] == [a, a, b, b, None]


@pytest.mark.parametrize("stages", [{}, {"a": StageConfig(epochs=0)}], ids=["none", "no length"])
def test_a_run_without_stages_is_refused(stages: dict[str, StageConfig]) -> None:
    with pytest.raises(ConfigError, match="no stages"):
        plan(TrainConfig(stages=stages), 10)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (0.5, [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (1.0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_learning_rate_is_constant_then_falls_linearly(decay: float, expected: list[float]) -> None:
    (stage,) = plan(TrainConfig(stages={"a": StageConfig(images=20, batch_size=2, decay=decay, lr=3e-4)}), 1)
    rates = [stage.learning_rate(step) for step in range(stage.steps)]
    assert rates == pytest.approx([3e-4 * factor for factor in expected])


def test_metrics_record_the_learning_rate_of_the_schedule(run: Path) -> None:
    rates = [record["lr"] for record in read_metrics(run) if "lr" in record]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4 * 2 / 3] * 3)
