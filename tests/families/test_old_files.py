"""Runs and models as earlier versions wrote them, when stages and models of all families had the same options."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from hdgan.config.serialization import from_plain
from hdgan.errors import CheckpointError
from hdgan.families import CRNConfig, CRNStage, Pix2PixConfig, Pix2PixHDConfig, Pix2PixHDStage, Pix2PixStage
from hdgan.families.registry import AnyModelConfig, AnyTrainConfig, build_model
from hdgan.training import PRESETS

SIZE: dict[str, Any] = {"width": None, "height": None, "crop_width": None, "crop_height": None, "jitter": 0}
STAGE: dict[str, Any] = {
    "n_enhancers": 0, "n_scales": 2, "generator": "all", "encoder": True, "size": SIZE, "batch_size": 1,
    "micro_batch": None, "epochs": 100.0, "images": None, "decay": 0.5, "lr": 0.0002,
}  # fmt: skip
MODEL: dict[str, Any] = {
    "n_labels": 35, "input_channels": 3, "image_channels": 3, "instances": False, "feature_channels": 0,
    "dontcare": None, "instance_divisor": 1000,
}  # fmt: skip
RUN: dict[str, Any] = {
    "data": {
        "root": "datasets/cityscapes",
        "scenes": {"width": 256, "height": 128, "train": 200, "test": 20, "seed": 0},
        "layout": "auto", "train_phase": "train", "val_phase": None, "dontcare": None, "instance_divisor": 1000,
        "flip": True, "photo_filter": "bicubic", "workers": None,
    },
    "optim": {"beta1": 0.5, "beta2": 0.999, "clip": None, "ema_decay": 0.999, "pool_size": 0},
    "log": {
        "metrics_every": 10, "samples_every": 1000, "samples": 4, "checkpoint_every": 1000, "keep": 2, "val_images": 16,
        "best": "l1", "scorer": None, "style_images": 64,
    },
    "init_from": None, "seed": 0, "device": "auto", "precision": "float32", "memory_format": "auto", "recompute": True,
    "compile": "none", "cuda_graphs": False, "threads": None,
}  # fmt: skip
CRN = RUN | {
    "out": "runs/crn",
    "model": MODEL | {"family": "crn", "n_modules": 7, "n_enhancers": 0, "width": 1.0, "n_images": 1},
    "stages": {
        "coarse": STAGE | {"size": SIZE | {"width": 512}, "epochs": 200, "decay": 0.0, "lr": 0.0001},
        "fine": STAGE | {
            "n_enhancers": 1, "size": SIZE | {"width": 1024}, "epochs": 20, "decay": 0.0, "lr": 0.0001,
        },
    },
    "loss": {"family": "crn", "vgg_weights": None, "scorer": None, "imagenet_normalisation": True},
    "optim": RUN["optim"] | {"beta1": 0.9},
}  # fmt: skip
PIX2PIX = RUN | {
    "out": "runs/pix2pix",
    "model": MODEL | {
        "family": "pix2pix", "norm": "batch",
        "generator": {"ngf": 64, "n_downs": None, "dropout_levels": [0, 1, 2], "kind": "unet"},
        "discriminator": {"ndf": 64, "n_layers": 3},
    },
    "stages": {"global": STAGE | {"size": SIZE | {"width": 256, "height": 256, "jitter": 30}, "epochs": 200}},
    "loss": {"family": "pix2pix", "gan": "vanilla", "l1": 100.0},
}  # fmt: skip
PIX2PIXHD = RUN | {
    "out": "runs/cityscapes-1024p",
    "model": MODEL | {
        "family": "pix2pixhd", "instances": True,
        "generator": {
            "ngf": 64, "n_downsample": 4, "n_blocks": 9, "n_enhancers": 0, "n_blocks_local": 3, "pad_mode": "reflect",
            "upsample": "transposed",
        },
        "discriminator": {"ndf": 64, "n_layers": 3, "n_scales": 2, "intermediate_features": True},
        "encoder": {"nef": 16, "n_downsample": 4, "reduction": 0, "pad_mode": "reflect", "upsample": "transposed"},
    },
    "stages": {
        "global": STAGE | {"size": SIZE | {"width": 1024}, "epochs": 200},
        "enhancer": STAGE | {
            "n_enhancers": 1, "n_scales": 3, "generator": "enhancer", "encoder": False, "size": SIZE | {"width": 2048},
            "epochs": 10, "decay": 0.0,
        },
        "joint": STAGE | {
            "n_enhancers": 1, "n_scales": 3, "size": SIZE | {"width": 2048}, "epochs": 90, "decay": 0.5555555555555556,
        },
    },
    "loss": {
        "family": "pix2pixhd", "gan": "lsgan", "feature_matching": 10.0, "vgg": 10.0,
        "vgg_layers": [0.03125, 0.0625, 0.125, 0.25, 1.0], "vgg_weights": None, "scorer": None,
        "imagenet_normalisation": False,
    },
}  # fmt: skip
RUNS = {"crn": CRN, "pix2pix": PIX2PIX, "cityscapes-1024p": PIX2PIXHD}


@pytest.mark.parametrize("name", RUNS)
def test_old_runs_load(name: str) -> None:
    decided = replace(PRESETS[name](), recompute=True, cuda_graphs=False)  # which was the default
    assert from_plain(AnyTrainConfig, RUNS[name], "config.json") == decided


def test_stages_that_train_the_finest_module_load() -> None:
    stage = STAGE | {"n_enhancers": 2, "generator": "enhancer", "encoder": False}
    assert from_plain(CRNStage, stage, "file") == CRNStage(extra_modules=2, train="finest")
    stage |= {"n_scales": 3}
    assert from_plain(Pix2PixHDStage, stage, "file") == Pix2PixHDStage(
        n_enhancers=2, n_scales=3, generator="enhancer", encoder=False
    )
    assert from_plain(Pix2PixStage, STAGE | {"encoder": False}, "file") == Pix2PixStage()


def test_old_models_load() -> None:
    grown = MODEL | {"family": "crn", "n_modules": 2, "n_enhancers": 1, "width": 1 / 128, "n_images": 1}
    config = from_plain(AnyModelConfig, grown, "file")
    assert config == CRNConfig(n_modules=2, extra_modules=1, width=1 / 128)
    assert len(build_model(config).generator.levels) == 3  # type: ignore[arg-type]
    assert from_plain(AnyModelConfig, PIX2PIX["model"], "file") == Pix2PixConfig(instances=False)
    with_features = PIX2PIXHD["model"] | {"feature_channels": 3}
    assert from_plain(AnyModelConfig, with_features, "file") == Pix2PixHDConfig(feature_channels=3)


@pytest.mark.parametrize(
    ("name", "place", "option", "value"),
    [
        ("crn", ("stages", "fine"), "n_scales", 1),
        ("crn", ("stages", "fine"), "n_blocks", 1),
        ("crn", ("model",), "feature_channels", 3),
        ("pix2pix", ("stages", "global"), "n_enhancers", 1),
        ("pix2pix", ("stages", "global"), "n_scales", 3),
        ("pix2pix", ("stages", "global"), "generator", "enhancer"),
        ("pix2pix", ("model",), "feature_channels", 3),
        ("cityscapes-1024p", ("stages", "joint"), "extra_modules", 0),
        ("cityscapes-1024p", (), "generator", "all"),
    ],
)
def test_what_had_a_meaning_that_is_unknown_is_refused(
    name: str, place: tuple[str, ...], option: str, value: object
) -> None:
    plain = part = copy.deepcopy(RUNS[name])
    for key in place:
        part = part[key]
    part[option] = value
    with pytest.raises(CheckpointError, match=rf"^config\.json: unknown option {'.'.join((*place, option))}; "):
        from_plain(AnyTrainConfig, plain, "config.json")


def test_an_option_by_both_names_is_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown option n_enhancers"):
        from_plain(CRNStage, {"n_enhancers": 1, "extra_modules": 2}, "file")
