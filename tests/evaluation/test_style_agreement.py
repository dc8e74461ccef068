"""Perfect features score 1, features of noise do not, and a switch changes its instance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig, SizeConfig
from hdgan.data.config import ScenesConfig
from hdgan.errors import CheckpointError, ConfigError
from hdgan.evaluation.style_agreement import mean_colours, measure_agreement, measure_changes, true_styles
from hdgan.families import (
    EncoderConfig,
    GeneratorConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    Pix2PixHDStage,
    Pix2PixHDTrainConfig,
)
from hdgan.families.saving import save_model
from hdgan.inference import load
from hdgan.inference.encoding import TrainedModel, encode, open_trained_model
from hdgan.scenes import SPEC, STYLES
from hdgan.styles.cluster import cluster


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks for small scenes, with their features and clusters."""
    folder = tmp_path_factory.mktemp("scenes")
    config = Pix2PixHDTrainConfig(
        model=Pix2PixHDConfig(
            n_labels=SPEC.n_labels,
            feature_channels=2,
            generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1),
            encoder=EncoderConfig(nef=2, n_downsample=1),
        ),
        data=DataConfig(scenes=ScenesConfig(width=64, height=32, train=10, test=2), workers=0),
        stages={"global": Pix2PixHDStage(size=SizeConfig(width=64))},
    )
    torch.manual_seed(0)
    file = folder / "model.safetensors"
    save_model(file, Pix2PixHD(config.model), extra={"train": to_plain(config), "stage": "global"})
    return file


@pytest.fixture(scope="module")
def trained(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HDGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        trained = open_trained_model(model_file, device="cpu")
    bank = cluster(encode(trained), 3)
    bank.save(trained.bank_file)
    return trained


def test_true_styles_are_those_of_the_scenes(trained: TrainedModel) -> None:
    table = encode(trained)
    truth = true_styles(trained, table)
    assert (truth != "").all()
    for label, style in zip(table.label, truth, strict=True):
        assert style in {known.name for known in STYLES[label]}
    moved = replace(trained, config=replace(trained.config, data=DataConfig(root=Path("elsewhere"))))
    with pytest.raises(ConfigError, match="was trained on elsewhere: only the built-in scenes have"):
        true_styles(moved, table)


def test_mean_colours_are_those_of_the_photos(trained: TrainedModel) -> None:
    table, colours = encode(trained), mean_colours(trained)
    assert colours.shape == (len(table), 3)
    sample = trained.dataset[1]
    row = int(np.flatnonzero((table.picture == 1) & (table.id == 0))[0])
    sky = sample["photo"][:, sample["ids"] == 0].float().mean(1) / 127.5 - 1
    np.testing.assert_allclose(colours[row], sky, atol=1e-5)


def test_features_that_tell_the_style_agree(trained: TrainedModel) -> None:
    table = encode(trained)
    truth = true_styles(trained, table)
    numbers = np.unique(truth, return_inverse=True)[1]
    telling = replace(table, feature=np.stack([np.cos(numbers), np.sin(numbers)], axis=1).astype(np.float32))
    noise = replace(table, feature=np.random.default_rng(0).normal(size=(len(table), 2)).astype(np.float32))
    by_label = {
        row.label: row for row in measure_agreement(trained, telling, cluster(telling, 10, min_area=0.001), 0.001)
    }
    cars = by_label[SPEC.classes.index("car")]
    assert cars.matched == cars.clustered == pytest.approx(1)
    assert 0 < cars.colours < 1
    assert cars.styles == len(STYLES[SPEC.classes.index("car")])
    assert cars.instances == ((table.label == SPEC.classes.index("car")) & (table.share >= 0.001)).sum()
    (bad,) = (
        r for r in measure_agreement(trained, noise, cluster(noise, 10, min_area=0.001), 0.001) if r.label == cars.label
    )
    assert bad.matched < 0.6
    fewer = replace(
        table, **{name: getattr(table, name)[:-1] for name in ("picture", "id", "label", "area", "feature")}
    )
    with pytest.raises(CheckpointError, match=r"instances, but the run's images have \d+: encode them again"):
        measure_agreement(trained, fewer, cluster(table), 0.001)


def test_a_switch_changes_its_instance(trained: TrainedModel) -> None:
    pipeline = load(trained.file, device="cpu")
    changes = measure_changes(pipeline, trained.data.validation(trained.size), 2, 0.01, seed=1)
    again = measure_changes(pipeline, trained.data.validation(trained.size), 2, 0.01, seed=1)
    assert changes == again
    assert {change.label for change in changes} >= {SPEC.classes.index("road"), SPEC.classes.index("building")}
    assert all(change.inside > 0 and change.outside >= 0 and change.switches == 2 for change in changes)
    assert sum(change.inside > change.outside for change in changes) > len(changes) / 2
    with pytest.raises(ConfigError, match="switches is 0"):
        measure_changes(pipeline, trained.data.validation(trained.size), 0, 0.01)


def test_an_instance_that_fills_its_picture_has_no_outside(trained: TrainedModel) -> None:
    pipeline = load(trained.file, device="cpu")
    sample = trained.data.validation(trained.size)[0]
    filled = {part: torch.full_like(sample[part], SPEC.classes.index("road")) for part in ("label", "ids")}
    alone, both = (measure_changes(pipeline, pictures, 4, 0.01) for pictures in ([sample], [filled, sample]))  # type: ignore[arg-type]
    assert both == alone
    assert SPEC.classes.index("road") in {change.label for change in alone}
    assert np.isfinite([change.outside for change in both]).all()
    assert measure_changes(pipeline, [filled], 1, 0.01) == []  # type: ignore[arg-type]


def test_the_command_prints_a_row_for_each_class(
    trained: TrainedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.data.config.root is not None
    monkeypatch.setenv("HDGAN_CACHE", str(trained.data.config.root.parents[1]))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["styles", "measure", str(trained.file), "--switches", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "NMI" in out
    assert all(f" {name} " in out for name in ("road", "building", "sky"))
