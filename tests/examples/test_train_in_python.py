"""The example that trains: a run on a user's folder, its losses, and a picture by the trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hdgan
from hdgan.checkpoints import list_steps
from hdgan.scenes import SPEC
from hdgan.training import TrainConfig, loop, saving


def test_a_folder_of_the_users(
    example: Callable[[str], Any],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, out = example("train_in_python"), tmp_path / "run"
    recipe = module.recipe

    def fast_recipe(*given: Any) -> TrainConfig:
        """The script's, without worker processes and estimates of memory, and with narrow networks."""
        config = recipe(*given)
        narrow = replace(config.model.generator, ngf=4, n_downsample=2, n_blocks=1)
        model = replace(config.model, generator=narrow, discriminator=replace(config.model.discriminator, ndf=4))
        return replace(config, model=model, data=replace(config.data, workers=0), recompute=False, device="cpu")

    def report(run: Path) -> Path:
        return run / "report.html"

    monkeypatch.setattr(module, "recipe", fast_recipe)
    for part in (loop, saving):
        monkeypatch.setattr(part, "write_report", report)
    module.main(out, data=dataset, n_labels=4, width=32, images=2)

    printed = capsys.readouterr().out
    assert list_steps(out)[-1] == 6
    for step, stage in ((2, "global"), (4, "enhancer"), (6, "joint")):
        assert f"step {step}, {stage}: L1 of the validation images" in printed
        assert f"{stage:10} g_feature_matching" in printed
    test = [dataset / f"test_{name}" for name in ("label/s0_label.png", "inst/s0_inst.tif", "img/s0_img.png")]
    with Image.open(out / "generated.png") as image:
        made = np.asarray(image)
    assert made.shape == (16, 32, 3)
    expected = hdgan.load(out)(test[0], test[1], photo=test[2]).permute(1, 2, 0).cpu().numpy() * 255
    assert np.abs(made - expected).max() < 1
    assert made.std() > 1


def test_built_in_scenes_are_as_few_as_the_images(example: Callable[[str], Any], tmp_path: Path) -> None:
    config = example("train_in_python").recipe(tmp_path, None, SPEC.n_labels, True, 64, 5)
    assert config.data.uses_scenes
    assert (config.data.scenes.width, config.data.scenes.height, config.data.scenes.train) == (64, 32, 5)
    assert [(stage.size.width, stage.images) for stage in config.stages.values()] == [(32, 5), (64, 5), (64, 5)]
