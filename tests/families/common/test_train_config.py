"""Configs that cannot work, and ready-made ones."""

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
from hdgan.families import (
    CRNConfig,
    CRNLoss,
    CRNStage,
    CRNTrainConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    Pix2PixConfig,
    Pix2PixHDConfig,
    Pix2PixHDLoss,
    Pix2PixHDStage,
    Pix2PixHDTrainConfig,
)
from hdgan.families.common.family import Family
from hdgan.families.registry import FAMILIES, AnyTrainConfig
from hdgan.training import PRESETS, LogConfig, OptimConfig, StageConfig, TrainConfig


def test_a_stage_trains_d_where_there_is_one() -> None:
    assert StageConfig().trained_names(Pix2PixConfig()) == ["G", "D"]
    assert StageConfig().trained_names(CRNConfig()) == ["G"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.config.family)
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"micro_batch": 0}, r"micro_batch is 0"),
        ({"lr": -1e-4}, r"lr is -0\.0001"),
        ({"lr_d": 0.0}, r"lr_d is 0\.0"),
        ({"epochs": -1}, r"epochs is -1"),
        ({"images": -5}, r"images is -5"),
        ({"decay": 1.5}, r"decay is 1\.5"),
        ({"schedule": "step"}, r"schedule is 'step': give linear or cosine or constant"),
        ({"warmup": 0.6}, r"warmup is 0\.6 and stages\.a\.decay 0\.5: .*add up to 1 at most"),
    ],
)
def test_stages_of_all_families_are_checked(family: Family, options: dict[str, Any], complaint: str) -> None:
    config = next(iter(family.presets.values()))()
    kind = type(next(iter(config.stages.values())))
    with pytest.raises(ConfigError, match=rf"^stages\.a\.{complaint}"):
        replace(config, stages={"a": kind(**options)})


@pytest.mark.parametrize(
    ("stages", "complaint"),
    [
        ({"a": Pix2PixHDStage(n_scales=0)}, r"stages\.a\.n_scales is 0"),
        ({"a": Pix2PixHDStage(generator="enhancer")}, r"stage a trains only the enhancer but has none"),
        (
            {"a": Pix2PixHDStage(n_enhancers=1), "b": Pix2PixHDStage()},
            r"stage b has 0 enhancers .* a run can only grow",
        ),
        ({"a": Pix2PixHDStage(n_scales=3), "b": Pix2PixHDStage()}, r"stage b has 0 enhancers and 2 scales, fewer"),
    ],
)
def test_stages_that_cannot_work_are_refused(stages: dict[str, Pix2PixHDStage], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Pix2PixHDTrainConfig(stages=stages)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Pix2PixHDTrainConfig(precision="fp16"), r"precision is 'fp16': give float32 or bfloat16"),
        (lambda: Pix2PixHDLoss(gan="wgan"), r"loss\.gan is 'wgan': give lsgan or vanilla or hinge"),
        (
            lambda: Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(generator="none")}),
            r"stages\.a\.generator is 'none'",
        ),
        (
            lambda: Pix2PixHDConfig(generator=GeneratorConfig(pad_mode="wrap")),
            r"model\.generator\.pad_mode is 'wrap'",
        ),
        (lambda: Pix2PixHDTrainConfig(out="runs/x"), r"out is 'runs/x': give a path"),
        (lambda: Pix2PixHDTrainConfig(out=Path("a\0b")), r"out is .*: give a path"),
        (lambda: Pix2PixHDTrainConfig(out=Path("s3://bucket/run")), "out is s3:.*: only data may be at a URL"),
        (lambda: Pix2PixHDTrainConfig(init_from=Path("gs://b/run")), "init_from is gs:.*: only data may be at a URL"),
        (lambda: Pix2PixHDTrainConfig(threads=10**6), "threads is 1000000: give a whole number from 1 to 1024"),
        (lambda: Pix2PixHDTrainConfig(seed=10**5000), "seed is a number of more than 4999 digits: give a whole number"),
        (lambda: Pix2PixHDTrainConfig(seed=True), "seed is True: give a whole number"),
        (lambda: Pix2PixHDTrainConfig(log=3), "log is 3: give a table of LogConfig"),
        (
            lambda: Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(epochs=float("inf"))}),
            r"stages\.a\.epochs is inf: give a number from 0",
        ),
        (
            lambda: Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(size=SizeConfig(width=0))}),
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
        Pix2PixHDTrainConfig(stages={"a": Pix2PixHDStage(batch_size=0)})


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_betas_are_below_one(name: str) -> None:
    for value in (1.0, -0.1):
        with pytest.raises(ConfigError, match=rf"optim\.{name} is {value}: give a number from 0 and below 1"):
            Pix2PixHDTrainConfig(optim=OptimConfig(**{name: value}))
    assert Pix2PixHDTrainConfig(optim=OptimConfig(beta1=0.0)).optim.beta1 == 0


def test_a_stage_that_trains_the_finest_module_adds_one() -> None:
    config = PRESETS["crn"]()
    complaint = r"stage a trains only the finest module but does not add one: set stages\.a\.extra_modules 1"
    with pytest.raises(ConfigError, match=complaint):
        replace(config, stages={"a": CRNStage(train="finest")})
    with pytest.raises(ConfigError, match=r"stage b has 7 modules, fewer than the stage before \(8 modules\)"):
        replace(config, stages={"a": CRNStage(extra_modules=1), "b": CRNStage()})


def test_the_base_of_all_runs_is_none() -> None:
    with pytest.raises(ConfigError, match=r"TrainConfig is only the base class: create the config of a family"):
        TrainConfig(model=CRNConfig(), loss=CRNLoss())


def test_images_too_small_for_the_loss() -> None:
    for config in (Pix2PixHDTrainConfig(), CRNTrainConfig()):
        with pytest.raises(ConfigError, match=r"a side of 15 pixels, but VGG19, .* needs 16: train at a larger size"):
            config.resolved([64, 15])
        assert config.resolved([16]) == config
    for loss in (Pix2PixHDLoss(vgg=0.0), Pix2PixHDLoss(network="random")):
        assert Pix2PixHDTrainConfig(loss=loss).resolved([4]).loss == loss
    assert CRNTrainConfig(loss=CRNLoss(network="random")).resolved([4])


def test_a_rate_of_d_is_for_families_with_a_discriminator() -> None:
    with pytest.raises(ConfigError, match=r"stages\.a\.lr_d is 0\.001, but the models of the family crn have no disc"):
        CRNTrainConfig(stages={"a": CRNStage(lr_d=1e-3)})


def test_a_rate_that_falls_before_it_has_risen_is_refused_in_every_family() -> None:
    with pytest.raises(ConfigError, match=r"stages\.a\.warmup is 0\.8 and stages\.a\.decay 0\.5"):
        CRNTrainConfig(stages={"a": CRNStage(warmup=0.8)})


def test_a_pool_is_for_families_with_a_discriminator() -> None:
    pool = OptimConfig(pool_size=50)
    assert replace(PRESETS["pix2pix"](), optim=pool).optim == pool
    with pytest.raises(ConfigError, match=r"optim\.pool_size is 50, but the models of the family crn have no disc"):
        replace(PRESETS["crn"](), optim=pool)


@pytest.mark.parametrize("name", ["metrics_every", "samples_every", "checkpoint_every", "keep", "val_images"])
def test_counts_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=f"log.{name} is 0"):
        Pix2PixHDTrainConfig(log=replace(LogConfig(), **{name: 0}))


def test_feature_matching_needs_the_discriminators_features() -> None:
    model = replace(Pix2PixHDTrainConfig().model, discriminator=DiscriminatorConfig(intermediate_features=False))
    with pytest.raises(ConfigError, match="feature matching needs"):
        Pix2PixHDTrainConfig(model=model)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip_and_have_stages(name: str) -> None:
    config = PRESETS[name]()
    assert from_plain(AnyTrainConfig, to_plain(config), "test") == config
    assert config.stages


def test_presets_follow_the_paper() -> None:
    first, second, third = PRESETS["cityscapes-1024p"]().stages.values()
    assert (first.n_enhancers, second.n_enhancers, third.n_enhancers) == (0, 1, 1)
    assert (first.generator, second.generator, third.generator) == ("all", "enhancer", "all")
    assert (second.n_scales, second.epochs, second.epochs + third.epochs) == (3, 10, 100)
    assert second.decay == 0
    assert third.decay * third.epochs == pytest.approx(50)
