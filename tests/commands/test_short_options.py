"""Short forms set all stages of a run; the long options of single stages win over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdgan.commands.run_length import with_length
from hdgan.commands.short_options import ResumeOptions, ShortOptions, apply, of_config, spellings, total_length
from hdgan.config.options import option_off, typed_as
from hdgan.data import SizeConfig
from hdgan.errors import ConfigError
from hdgan.training import PRESETS, TrainConfig


def changed(preset: str | TrainConfig, kind: type[ShortOptions] = ShortOptions, **options: Any) -> TrainConfig:
    config = PRESETS[preset]() if isinstance(preset, str) else preset
    short = replace(of_config(config, kind), **options)
    length = total_length(short, [f"--{name.replace('_', '-')}" for name in options])
    return with_length(apply(short, config), length, {}, resumes=kind is ResumeOptions)


def images(config: TrainConfig) -> list[int | None]:
    return [stage.images for stage in config.stages.values()]


def sizes(config: TrainConfig) -> list[tuple[int | None, int | None]]:
    return [(stage.size.width, stage.size.height) for stage in config.stages.values()]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [ShortOptions, ResumeOptions])
def test_what_nobody_changes_stays(preset: str, kind: type[ShortOptions]) -> None:
    config = PRESETS[preset]()
    assert changed(preset, kind) == config


def test_each_option_sets_its_field() -> None:
    config = changed(
        "demo", data_root=Path("d"), out=Path("o"), precision="bfloat16", device="cpu", workers=0, n_labels=7,
        dontcare=255, instances=False, seed=3, threads=1, init_from=Path("i"), batch_size=4, lr=1e-3,
    )  # fmt: skip
    assert config.data == replace(PRESETS["demo"]().data, root=Path("d"), workers=0, dontcare=255)
    assert (config.model.n_labels, config.model.instances) == (7, False)
    assert (config.out, config.init_from, config.device) == (Path("o"), Path("i"), "cpu")
    assert (config.precision, config.seed, config.threads) == ("bfloat16", 3, 1)
    assert {(stage.batch_size, stage.lr) for stage in config.stages.values()} == {(4, 1e-3)}
    assert images(config) == images(PRESETS["demo"]())


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({"images": 2780}, [1500, 240, 1040]),
        ({"steps": 139}, [75, 12, 52]),
        ({"steps": 139, "batch_size": 4}, [300, 48, 208]),
        ({"steps": 3}, [1, 1, 1]),
        ({"steps": 4}, [2, 1, 1]),
    ],
)
def test_stages_keep_their_share_of_a_length(options: dict[str, int], lengths: list[int]) -> None:
    assert images(changed("demo", **options)) == lengths


def test_epochs_replace_the_images_of_a_preset_and_the_other_way_round() -> None:
    demo = changed("demo", epochs=13.9)
    assert images(demo) == [None] * 3
    assert [stage.epochs for stage in demo.stages.values()] == pytest.approx([7.5, 1.2, 5.2])
    assert [s.epochs for s in changed("cityscapes-1024p", epochs=30).stages.values()] == pytest.approx([20, 1, 9])
    assert images(changed("cityscapes-1024p", images=300)) == [200, 10, 90]


def test_a_stage_of_no_length_is_left_out_still() -> None:
    demo = PRESETS["demo"]()
    config = replace(demo, stages={**demo.stages, "global": replace(demo.stages["global"], images=0)})
    assert images(changed(config, images=64)) == [0, 12, 52]


def test_a_run_that_goes_on_changes_its_last_stage() -> None:
    assert images(changed("demo", ResumeOptions, images=2000)) == [750, 120, 1130]
    assert images(changed("demo", ResumeOptions, steps=1000)) == [750, 120, 130]
    config = changed("cityscapes-1024p", ResumeOptions, epochs=400.0)
    assert [stage.epochs for stage in config.stages.values()] == [200, 10, 190]


@pytest.mark.parametrize(
    ("preset", "size", "expected"),
    [
        ("demo", "512x256", [(256, 128), (512, 256), (512, 256)]),
        ("cityscapes-1024p", "1024", [(512, None), (1024, None), (1024, None)]),
        ("cityscapes-1024p", "*x512", [(None, 256), (None, 512), (None, 512)]),
        ("pairs", "300x200", [(300, 200)]),
    ],
)
def test_coarser_stages_keep_their_ratio_to_the_size(
    preset: str, size: str, expected: list[tuple[int | None, int | None]]
) -> None:
    assert sizes(changed(preset, size=size)) == expected


def test_scenes_are_drawn_at_the_size_and_crops_follow_it() -> None:
    scenes = changed("demo", size="512").data.scenes
    assert (scenes.width, scenes.height) == (512, 256)
    assert changed("demo", size="512", data_root=Path("d")).data.scenes == PRESETS["demo"]().data.scenes
    assert changed("pix2pix", size="128x128").stages["global"].size == SizeConfig(width=128, height=128, jitter=15)


@pytest.mark.parametrize(
    ("preset", "kind", "options", "complaint"),
    [
        ("demo", ShortOptions, {"steps": 2}, "--steps is 2, but there are 3 stages: give at least one for each"),
        ("demo", ShortOptions, {"epochs": float("inf")}, "--epochs is inf: give a positive number"),
        ("demo", ShortOptions, {"images": -1}, "--images is -1: give a positive number"),
        ("demo", ShortOptions, {"epochs": 2.0, "steps": 9}, "--epochs and --steps both set the length of training"),
        ("demo", ShortOptions, {"size": "512x"}, "--size is '512x': give WIDTH or WIDTHxHEIGHT in pixels"),
        ("demo", ShortOptions, {"size": "0"}, "--size is '0': give WIDTH"),
        ("pix2pix", ShortOptions, {"size": "512"}, "--size 512: crops need both sides; give WIDTHxHEIGHT"),
        ("demo", ResumeOptions, {"images": 870}, "--images is 870, but the stages before joint already take 870"),
        ("demo", ResumeOptions, {"epochs": 9.0}, "--epochs 9: the stages of this run are not counted in epochs"),
        ("demo", ResumeOptions, {"batch_size": 2}, "--batch-size sets all stages, .* --stages.NAME.batch-size"),
    ],
)
def test_what_the_stages_cannot_follow_is_refused(
    preset: str, kind: type[ShortOptions], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        changed(preset, kind, **options)


def test_messages_name_the_form_that_was_typed() -> None:
    typed = spellings(["--n-labels", "4", "--lr=1", "--stages.b.lr", "2", "--data.workers", "1"], ["a", "b"])
    assert typed == {"model.n_labels": "--n-labels", "stages.a.lr": "--lr"}
    for arguments, off in (
        (["--no-instances"], "--no-instances"),
        (["--no_instances"], "--no-instances"),
        (["--model.no-instances"], "--model.no-instances"),
        (["--no-instances", "--model.no_instances"], "--model.no-instances"),
        ([], "--model.no-instances"),
    ):
        with typed_as(spellings(arguments, [])):
            assert option_off("model.instances") == off
    assert option_off("model.instances") == "model.instances=False"
