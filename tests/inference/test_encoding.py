"""Encoding finds every instance of every training image once, also when it is interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.data import read_map, read_photo
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.inference import encoding as module
from hdgan.inference import load
from hdgan.inference.encoding import encode, open_trained_model
from hdgan.sharding.world import World
from hdgan.styles.table import FeatureTable


def test_the_table_has_each_instance_of_each_training_picture(styled: Path, dataset: Path) -> None:
    trained = open_trained_model(styled, device="cpu")
    table = FeatureTable.load(trained.table_file)
    assert table.stem.tolist() == [f"s{k}" for k in range(6)]
    model = load(styled, device="cpu")
    row = 0
    for k in range(6):
        files = (dataset / f"train_label/s{k}_label.png", dataset / f"train_inst/s{k}_inst.tif")
        label, ids = map(read_map, files)
        styles = model.encode(read_photo(dataset / f"train_img/s{k}_img.png"), label, ids)
        for id in np.unique(ids):
            inside = ids == id
            assert (table.picture[row], table.id[row], table.area[row]) == (k, id, inside.sum())
            assert table.label[row] == (id // 1000 if id >= 1000 else id)
            y, x = np.nonzero(inside)
            assert table.box[row].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            np.testing.assert_allclose(table.feature[row], styles.instances[id].feature, atol=1e-5)
            assert styles.instances[id].label == table.label[row]
            row += 1
    assert row == len(table)
    assert table.origin.encoder == model.encoder_id
    assert table.origin.checkpoint == "step-00000009 of run"


def test_an_interrupted_encoding_goes_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 2)
    trained = open_trained_model(copied, device="cpu")
    expected = FeatureTable.load(trained.table_file)
    trained.table_file.unlink()
    real = module._encoded

    def until(stop: int) -> None:
        def some(of: module.TrainedModel, start: int, world: World) -> Iterator[FeatureTable]:
            for k, row in enumerate(real(of, start, world), start):
                if k == stop:
                    raise KeyboardInterrupt
                began.append(k)
                yield row

        monkeypatch.setattr(module, "_encoded", some)

    began: list[int] = []
    until(5)
    with pytest.raises(KeyboardInterrupt):
        encode(trained)
    assert not trained.table_file.exists()
    (parts,) = trained.table_file.parent.glob(".features.npz.parts-*")
    assert sorted(file.name for file in parts.iterdir()) == ["00000002.npz", "00000004.npz"]
    (parts / "00000004.npz").write_bytes(b"torn")
    seen: list[tuple[int, int]] = []
    until(6)
    table = encode(trained, lambda done, total: seen.append((done, total)))
    assert began == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert seen[0] == (2, 6)
    assert seen[-1] == (6, 6)
    assert table.id.tolist() == expected.id.tolist()
    assert table.picture.tolist() == expected.picture.tolist()
    np.testing.assert_allclose(table.feature, expected.feature, atol=1e-6)
    assert not parts.exists()


def test_parts_behind_a_missing_one_are_made_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 2)
    trained = open_trained_model(copied, device="cpu")
    expected = FeatureTable.load(trained.table_file)
    with monkeypatch.context() as within:
        within.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # the parts stay
        encode(trained)
    (parts,) = trained.table_file.parent.glob(".features.npz.parts-*")
    (parts / "00000002.npz").unlink()
    table = encode(trained)
    assert table.id.tolist() == expected.id.tolist()
    assert table.picture.tolist() == expected.picture.tolist()


def test_nothing_is_written_where_training_deleted_the_checkpoint(copied: Path) -> None:
    trained = open_trained_model(copied, device="cpu")
    shutil.rmtree(trained.file.parent)
    with pytest.raises(CheckpointError, match=r"model\.safetensors no longer exists: a running training .*log\.keep"):
        encode(trained)
    assert not trained.file.parent.exists()


def test_the_name_of_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "mine/checkpoints/step-00000003/model.safetensors"
    assert module._name(run) == "step-00000003 of mine"
    assert module._name(Path("/weights/model.safetensors")) == "weights"
    assert module._name(tmp_path / "x.safetensors") == "x.safetensors"


def test_parts_of_another_encoder_are_not_taken_over(copied: Path) -> None:
    trained = open_trained_model(copied, device="cpu")
    foreign = trained.table_file.with_name(".features.npz.parts-000000000000")
    foreign.mkdir()
    shutil.copy(trained.table_file, foreign / "00000006.npz")
    raw = open_trained_model(copied, device="cpu", ema=False)
    assert raw.origin.encoder != trained.origin.encoder
    assert encode(raw).origin == raw.origin
    assert not foreign.exists()


def test_parts_of_changed_pictures_are_not_taken_over(dataset: Path, tmp_path: Path) -> None:
    root = shutil.copytree(dataset, tmp_path / "data")
    torch.manual_seed(0)
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    file = tmp_path / "x.safetensors"
    save_model(file, Pix2PixHD(Pix2PixHDConfig(n_labels=4, feature_channels=2, generator=small)))
    before = module._key(open_trained_model(file, root=root))
    assert module._key(open_trained_model(file, root=root)) == before
    photo = root / "train_img/s3_img.png"
    stat = photo.stat()
    os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert module._key(open_trained_model(file, root=root)) != before


def test_whole_pictures_at_the_size_of_the_stage(styled: Path, dataset: Path) -> None:
    assert open_trained_model(styled, device="cpu").dataset[0]["photo"].shape == (3, 16, 32)
    assert open_trained_model(styled, device="cpu", width=8).dataset[0]["photo"].shape == (3, 4, 8)
    moved = open_trained_model(styled, device="cpu", root=dataset)
    assert len(moved.dataset) == 6
    with pytest.raises(DataError, match="nowhere is not a folder"):
        open_trained_model(styled, device="cpu", root=Path("nowhere"))


def test_a_model_without_run_takes_a_dataset(dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    file = tmp_path / "x.safetensors"
    save_model(file, Pix2PixHD(Pix2PixHDConfig(n_labels=4, feature_channels=2, generator=small)))
    with pytest.raises(ConfigError, match=r"x\.safetensors does not say what it was trained on: .* with root"):
        open_trained_model(file)
    trained = open_trained_model(file, root=dataset)
    assert trained.table_file == tmp_path / "x.features.npz"
    assert trained.bank_file == tmp_path / "x.styles.safetensors"
    assert len(encode(trained).stem) == 6


def test_a_model_that_has_no_styles_is_refused(dataset: Path, tmp_path: Path) -> None:
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    file = tmp_path / "x.safetensors"
    save_model(file, Pix2PixHD(Pix2PixHDConfig(n_labels=4, generator=small)))
    with pytest.raises(ConfigError, match=r"trained without features .* model\.feature_channels 3"):
        open_trained_model(file, root=dataset)
    model = Pix2PixHD(Pix2PixHDConfig(n_labels=4, feature_channels=2, generator=small))
    model.encoder = None
    save_model(file, model)
    with pytest.raises(ConfigError, match="contains no encoder: convert it again with --encoder"):
        open_trained_model(file, root=dataset)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_trained_model(tmp_path / "none")
