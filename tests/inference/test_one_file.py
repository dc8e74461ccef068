"""A run as one file: what it keeps, and what it leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hdgan
from hdgan.checkpoints import find_checkpoint
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families.saving import CLASS_MEAN, load_model, read_metadata, save_model
from hdgan.inference.one_file import _last_part, export_model


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_those_of_the_run_as_rounded(run: Path, dtype: torch.dtype, ema: bool, tmp_path: Path) -> None:
    source = find_checkpoint(run)
    export_model(source, tmp_path / "x.safetensors", dtype, ema=ema)
    model, info = load_model(source, ema=ema)
    found, found_info = load_model(tmp_path / "x.safetensors")
    assert found.discriminator is None
    model.discriminator = None
    for key, value in model.state_dict().items():
        assert found.state_dict()[key].dtype == torch.float32
        assert torch.equal(found.state_dict()[key], value.to(dtype).float()), key
    stored = load_file(tmp_path / "x.safetensors")
    assert stored.keys() == {*model.state_dict(), CLASS_MEAN}
    assert {stored[name].dtype for name, _ in model.named_parameters()} == {dtype}
    assert torch.equal(found_info.tensors[CLASS_MEAN], info.tensors[CLASS_MEAN])


def test_styles_go_with_the_model(styled: Path, label: Path, ids: Path, tmp_path: Path) -> None:
    notes = export_model(find_checkpoint(styled), tmp_path / "new" / "model.safetensors", torch.bfloat16)
    assert notes[1].endswith(f"clusters of styles: {tmp_path}/new/styles.safetensors")
    before, after = hdgan.load(styled, device="cpu"), hdgan.load(tmp_path / "new", device="cpu")
    assert after.encoder_id != before.encoder_id
    assert after.bank.origin.encoder == after.encoder_id
    assert after.bank.origin.checkpoint == before.bank.origin.checkpoint
    for of_class, own in before.bank.clusters.items():
        for one, other in zip(own, after.bank.clusters[of_class], strict=True):
            np.testing.assert_array_equal(one.centre, other.centre)
            np.testing.assert_array_equal(np.asarray(one.thumbnail), np.asarray(other.thumbnail))
    styles = after.bank.sample(after.instances(label, ids))
    assert after(label, ids, styles=styles).shape == (3, 16, 32)


def test_a_file_of_another_name_has_its_styles_beside_it(styled: Path, tmp_path: Path) -> None:
    export_model(find_checkpoint(styled), tmp_path / "mine.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.safetensors", "mine.styles.safetensors"}
    assert hdgan.load(tmp_path / "mine.safetensors", device="cpu").bank.clusters


def test_what_is_left_out_is_told(run: Path, tmp_path: Path) -> None:
    first, second = export_model(find_checkpoint(run), tmp_path / "x.safetensors")
    assert first.startswith("the discriminator is left out")
    assert second == f"{find_checkpoint(run)} has no clusters of styles, so the new file has none either"
    (only,) = export_model(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert only == f"{tmp_path}/x.safetensors has no clusters of styles, so the new file has none either"
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_paths_of_this_machine_stay_here(run: Path, dataset: Path, tmp_path: Path) -> None:
    before = read_metadata(find_checkpoint(run))
    assert Path(before["train"]["out"]).is_absolute()
    export_model(find_checkpoint(run), tmp_path / "x.safetensors")
    after = read_metadata(tmp_path / "x.safetensors")
    assert after["train"]["out"] == run.name
    assert after["train"]["data"]["root"] == str(dataset)  # where commands look for the images
    for metadata in (before, after):
        del metadata["train"]["out"]
    assert before == after


def test_what_tells_of_the_training_images_can_stay_here(styled: Path, dataset: Path, tmp_path: Path) -> None:
    source = find_checkpoint(styled)
    export_model(source, tmp_path / "x.safetensors", data_paths=False, examples=False)
    assert read_metadata(tmp_path / "x.safetensors")["train"]["data"]["root"] == dataset.name
    found = hdgan.load(tmp_path / "x.safetensors", device="cpu").bank.clusters
    expected = hdgan.load(source, device="cpu").bank.clusters
    for label, own in expected.items():
        assert all(cluster.examples and cluster.thumbnail is not None for cluster in own)
        for bare, full in zip(found[label], own, strict=True):
            assert (bare.examples, bare.thumbnail, bare.count) == ((), None, full.count)
            np.testing.assert_array_equal(bare.centre, full.centre)


def test_nothing_is_overwritten(styled: Path, tmp_path: Path) -> None:
    source = find_checkpoint(styled)
    with pytest.raises(ConfigError, match=r"x must end in \.safetensors"):
        export_model(source, tmp_path / "x")
    for name in ("x.safetensors", "x.styles.safetensors"):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(ConfigError, match=f"{name} already exists: choose another out, or delete it"):
            export_model(source, tmp_path / "x.safetensors")
        assert (tmp_path / name).read_bytes() == b"mine"
        (tmp_path / name).unlink()


def test_styles_of_another_encoder_are_refused(copied: Path, tmp_path: Path) -> None:
    source = find_checkpoint(copied)
    with pytest.raises(CheckpointError, match=r"`hdgan styles encode .*` and `hdgan styles cluster .*`, with the same"):
        export_model(source, tmp_path / "x.safetensors", ema=False)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_file_without_a_known_training(styled: Path, tmp_path: Path) -> None:
    model, _ = load_model(find_checkpoint(styled))
    model.encoder = None
    save_model(tmp_path / "x.safetensors", model, extra={"source": "elsewhere", "train": ["damaged"]})
    shutil.copy(find_checkpoint(styled).with_name("styles.safetensors"), tmp_path / "x.styles.safetensors")
    export_model(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    metadata = read_metadata(tmp_path / "y.safetensors")
    assert (metadata["source"], metadata["train"]) == ("elsewhere", ["damaged"])
    assert hdgan.load(tmp_path / "y.safetensors", device="cpu").bank.origin.encoder == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/jane/runs/a", "a"),
        ("C:/Users/jane/run", "run"),
        ("C:\\Users\\jane\\run", "run"),
        ("../../home/jane/clinic", "clinic"),
        ("~/jane/s.safetensors", "s.safetensors"),
        ("timm:local-dir:/home/jane/x", "timm:local-dir:x"),
        ("timm:resnet18", "timm:resnet18"),
        ("runs/demo", "runs/demo"),
        ("s3://clinic/jane/set", "set"),
        ("simplecache::https://clinic/set", "set"),
        ("", ""),
    ],
)
def test_texts_that_tell_of_a_machine_are_cut(text: str, kept: str) -> None:
    assert _last_part(text) == kept
