"""Which names the classes of a model have: those of the dataset, or those that its file keeps."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import hdgan
from hdgan.config.serialization import to_plain
from hdgan.data import DataConfig
from hdgan.data.class_file import CLASS_FILE, read_classes
from hdgan.data.spec import DatasetSpec
from hdgan.errors import CheckpointError, DataError
from hdgan.families import (
    DiscriminatorConfig,
    GeneratorConfig,
    Pix2PixHD,
    Pix2PixHDConfig,
    Pix2PixHDStage,
    Pix2PixHDTrainConfig,
)
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.scenes import SPEC
from hdgan.training import TrainConfig, train
from hdgan.training.known_classes import classes_of_data, classes_of_model, classes_to_keep, renamed_note

CONFIG = Pix2PixHDConfig(n_labels=2, generator=GeneratorConfig(4, 1, 1), discriminator=DiscriminatorConfig(2, 1, 1))
KEPT = DatasetSpec.of_colors(["road", "sky"], [(1, 2, 3), (4, 5, 6)])
SaveModel = Callable[..., Path]


def names(spec: DatasetSpec | None) -> tuple[str, ...] | None:
    return None if spec is None else spec.classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def save(root: Path, tmp_path: Path) -> SaveModel:
    """Write a model that was trained on the data in `root`, with the names that it kept."""

    def save(kept: DatasetSpec | None) -> Path:
        stages = {"global": Pix2PixHDStage()}
        config = Pix2PixHDTrainConfig(model=CONFIG, data=DataConfig(root=root), stages=stages)
        extra = {"train": to_plain(config), "stage": "global", **classes_entry(kept)}
        save_model(tmp_path / "model.safetensors", Pix2PixHD(CONFIG), extra=extra)
        return tmp_path / "model.safetensors"

    return save


def test_a_model_by_itself_has_the_names_that_it_kept(save: SaveModel, root: Path) -> None:
    (root / CLASS_FILE).write_text("label,name\n0,street\n1,heaven\n")
    assert names(classes_of_model(save(KEPT), CONFIG)) == ("road", "sky")
    assert names(hdgan.load(save(KEPT), device="cpu").classes) == ("road", "sky")
    assert names(classes_of_model(save(None), CONFIG)) == ("street", "heaven")
    (root / CLASS_FILE).unlink()
    assert classes_of_model(save(None), CONFIG) is None


def test_a_model_whose_training_is_described_badly_keeps_what_is_known(save: SaveModel) -> None:
    for kept in (KEPT, None):
        file = save(kept)
        model, _ = load_model(file)
        save_model(file, model, extra={"train": "damaged", **classes_entry(kept)})
        assert names(classes_to_keep(file, CONFIG)) == names(kept)
    with pytest.raises(CheckpointError):
        classes_of_model(file, CONFIG)
    save_model(file, model, extra={"train": "damaged", "classes": [{"name": "road", "color": "red"}] * 2})
    with pytest.raises(CheckpointError, match="which is no name with a colour"):
        classes_to_keep(file, CONFIG)


def test_a_dataset_has_its_own_names(save: SaveModel, root: Path) -> None:
    file, data = save(KEPT), DataConfig(root=root)
    assert names(classes_of_data(data, file, CONFIG)) == ("road", "sky")
    (root / CLASS_FILE).write_text("label,name\n0,street\n1,heaven\n")
    assert names(classes_of_data(data, file, CONFIG)) == ("street", "heaven")
    (root / CLASS_FILE).write_text("label,name\n0,street\n")
    remedy = "give the file a line for each label from 0 to 1, or use a dataset that has the classes of the model"
    with pytest.raises(DataError, match=rf"classes\.csv has 1 class, but the model was trained with 2: {remedy}"):
        classes_of_data(data, file, CONFIG)


def test_models_of_images_have_no_classes(root: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, n_labels=0)
    save_model(tmp_path / "model.safetensors", Pix2PixHD(config))
    (root / CLASS_FILE).write_text("run,class\n")
    assert classes_of_model(tmp_path / "model.safetensors", config) is None
    assert classes_of_data(DataConfig(root=root), tmp_path / "model.safetensors", config) is None


def test_other_names_are_noted(root: Path) -> None:
    data = DataConfig(root=root)
    assert renamed_note(data, KEPT, KEPT, "the run x") == ""
    assert renamed_note(data, KEPT, None, "the run x") == ""
    assert renamed_note(DataConfig(), SPEC, SPEC, "the run x") == ""
    other = replace(KEPT, classes=("sky", "road"))
    assert renamed_note(data, other, KEPT, "the run x").startswith(
        f"{root}/classes.csv calls label 0 'sky', but the run x was trained with 'road' (and 1 more): if only the name "
    )


@pytest.mark.usefixtures("plain_report")
def test_a_run_keeps_names_that_a_resume_may_change(
    make_config: Callable[..., TrainConfig], dataset: Path, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(dataset, root)
    (root / CLASS_FILE).write_text("label,name,color\n3,d,\n1,b,#010203\n0,a,\n2,c,\n")
    config = make_config(out, images=2)
    config = replace(config, data=replace(config.data, root=root), stages={"global": config.stages["global"]})
    train(config, console=Console(quiet=True))
    assert names(hdgan.load(out, device="cpu").classes) == ("a", "b", "c", "d")
    assert hdgan.load(out, device="cpu").classes.css_colors[1] == "#010203"  # type: ignore[union-attr]
    assert read_classes(out / CLASS_FILE).classes == ("a", "b", "c", "d")

    (root / CLASS_FILE).write_text("label,name\n0,a\n1,bb\n2,c\n3,d\n")
    console = Console(file=io.StringIO(), width=300)
    longer = replace(config, stages={"global": replace(config.stages["global"], images=4)})
    train(longer, resume=True, console=console)
    assert "calls label 1 'bb', but " in console.file.getvalue()  # type: ignore[attr-defined]
    assert names(hdgan.load(out, device="cpu").classes) == ("a", "bb", "c", "d")

    (root / CLASS_FILE).unlink()
    longest = replace(config, stages={"global": replace(config.stages["global"], images=6)})
    train(longest, resume=True, console=Console(quiet=True))
    assert names(hdgan.load(out, device="cpu").classes) == ("a", "bb", "c", "d")
    assert read_classes(out / CLASS_FILE).classes == ("a", "bb", "c", "d")
