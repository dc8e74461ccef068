"""Training the built-in scorer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hdgan.data import DataConfig, PairedDataset, ScenesConfig, SizeConfig, find_pairs
from hdgan.errors import ConfigError, DataError, TrainingError
from hdgan.evaluation import ScorerTraining, scorer_training, train_scorer
from hdgan.families.saving import read_metadata
from hdgan.metrics.confusion import Confusion
from hdgan.metrics.scorer import load_scorer

N_LABELS = 4
SIZE = SizeConfig()


@pytest.fixture
def data(dataset: Path) -> DataConfig:
    return DataConfig(root=dataset, workers=0)


def short(data: DataConfig, out: Path, *, n_labels: int = N_LABELS, seed: int = 0, size: SizeConfig = SIZE) -> Path:
    return train_scorer(data, n_labels, size, out, ScorerTraining(3, 2, width=2, seed=seed), device="cpu")


def test_it_learns_to_recognise_what_it_was_shown(scorer: Path, data: DataConfig) -> None:
    pictures = PairedDataset(find_pairs(data, "train", True).pairs, data, SIZE, N_LABELS)
    network, counts = load_scorer(scorer, N_LABELS, torch.device("cpu")), Confusion(N_LABELS)
    for index in range(len(pictures)):
        sample = pictures[index]
        counts.add(counts.count(sample["label"][None], network(sample["photo"][None] / 127.5 - 1)))
    assert counts.pixel_accuracy is not None
    assert counts.pixel_accuracy > 0.5  # a guess has a quarter


def test_the_seed_decides_the_scorer_and_the_callers_generator_stays(data: DataConfig, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_file(short(data, tmp_path / "a.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = (
        load_file(short(data, tmp_path / f"{name}.safetensors", seed=seed)) for name, seed in (("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
    about = read_metadata(tmp_path / "a.safetensors")
    assert about["training"] == {"steps": 3, "batch_size": 2, "lr": 0.002, "width": 2, "seed": 0}
    assert about["trained_on"]["data"]["root"] == str(data.root)


def test_pixels_of_no_class_teach_nothing(make_data: Callable[..., Path], tmp_path: Path) -> None:
    """Where every pixel is of no class the weights stay as they are."""
    root = make_data()
    for file in (root / "train_label").iterdir():
        Image.fromarray(np.full((16, 32), 255, np.uint8)).save(file)
    data = DataConfig(root=root, workers=0, dontcare=255)
    trained = load_file(short(data, tmp_path / "a.safetensors"))
    torch.manual_seed(0)
    untrained = scorer_training.Segmenter(scorer_training.SegmenterConfig(N_LABELS, 2)).state_dict()
    assert all(torch.equal(trained[key], untrained[key]) for key in untrained)


def test_crops_may_differ_from_the_files(data: DataConfig, tmp_path: Path) -> None:
    out = short(data, tmp_path / "a.safetensors", size=SizeConfig(crop_width=20, crop_height=12))
    assert out.is_file()


def test_built_in_scenes_need_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    data = DataConfig(scenes=ScenesConfig(width=32, height=16, train=2, test=1), workers=0)
    assert short(data, tmp_path / "a.safetensors", n_labels=9).is_file()
    with pytest.raises(ConfigError, match="the built-in scenes have 9 classes, but the model has 4"):
        short(data, tmp_path / "b.safetensors")


def test_a_file_is_never_overwritten(data: DataConfig, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"a\.safetensors already exists: use it without train_scorer"):
        short(data, out)
    assert out.read_text() == "precious"
    with pytest.raises(ConfigError, match=r"a\.pt must end in \.safetensors"):
        short(data, tmp_path / "a.pt")


def test_ctrl_c_leaves_no_file(data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scorer_training._moved

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer_training, "_moved", interrupted)
    with pytest.raises(KeyboardInterrupt):
        short(data, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_on_is_refused(
    data: DataConfig, make_data: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.safetensors"
    with pytest.raises(ConfigError, match="n_labels is 0: give data with labels"):
        short(data, out, n_labels=0)
    root = make_data()
    for file in (root / "train_img").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="has no photos for phase train"):
        short(replace(data, root=root), out)
    with pytest.raises(ConfigError, match=r"scorer_training\.steps is 0: give a whole number from 1"):
        train_scorer(data, N_LABELS, SIZE, out, ScorerTraining(steps=0))
    monkeypatch.setattr(
        scorer_training, "_moved", lambda *_: (torch.full((1, 3, 16, 16), torch.nan), torch.zeros(1, 16, 16).long())
    )
    with pytest.raises(TrainingError, match=r"step 3 of the scorer's training: the loss is nan; lower"):
        short(data, out)
    assert not out.exists()
