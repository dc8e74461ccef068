from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.data.spec import DatasetSpec
from hdgan.editor.context import EditorContext, open_context, output_folder
from hdgan.editor.session_view import describe_classes
from hdgan.editor.storage import read_document
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.families.saving import load_model, save_model
from hdgan.families.stored_classes import classes_entry
from hdgan.inference import load
from hdgan.scenes import SPEC
from hdgan.training import PRESETS

from .conftest import open_run, write_model


def test_a_run_has_held_out_samples(context: EditorContext) -> None:
    assert context.samples is not None
    assert len(context.samples) == 2
    assert context.notes == ()


def test_documents_are_saved_in_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = next(run.glob("checkpoints/*/model.safetensors"))
    for given in (run, file.parent, file):
        assert open_run(given).folder == run / "edits"
    monkeypatch.chdir(file.parent)
    for relative in (".", "model.safetensors", f"../{file.parent.name}"):
        assert open_run(Path(relative)).folder == run / "edits"


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("model.safetensors", "edits"),
        ("mine.safetensors", "mine.edits"),
        ("step-5/model.safetensors", "step-5/edits"),
        ("run/checkpoints/copy/model.safetensors", "run/checkpoints/copy/edits"),
        ("run/checkpoints/step-00000005/model.safetensors", "run/edits"),
    ],
)
def test_documents_are_saved_beside_a_model_without_a_run(tmp_path: Path, model: str, folder: str) -> None:
    assert output_folder(tmp_path / model) == tmp_path / folder


def test_a_model_of_hdgan_has_scenes_and_saves_here(shipped: Path, tmp_path: Path) -> None:
    context = open_context(load("demo", device="cpu"), 10_000)
    assert context.samples is not None
    assert len(context.samples) == 2
    assert context.sample(1).size == (32, 16)
    assert len(list((tmp_path / "cache").rglob("train_img/*.png"))) == 1
    assert context.folder == Path("demo.edits")
    assert {path.name for path in shipped.parent.iterdir()} == {"model.safetensors"}


def test_a_link_to_a_checkpoint_leads_to_its_run(tmp_path: Path) -> None:
    step = tmp_path / "run" / "checkpoints" / "step-00000005"
    step.mkdir(parents=True)
    (tmp_path / "link").symlink_to(step)
    assert output_folder(tmp_path / "link" / "model.safetensors") == tmp_path / "run" / "edits"


def test_a_run_without_clusters_says_how_to_make_them(run: Path) -> None:
    (note,) = open_run(run).notes
    assert "hdgan styles encode" in note
    assert "hdgan styles cluster" in note


def test_clusters_are_found_as_soon_as_they_exist(run: Path, styled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    context = open_run(copy)
    assert context.choices(2) == []
    (bank,) = styled.glob("checkpoints/*/styles.safetensors")
    assert context.pipeline.file is not None
    shutil.copy(bank, context.pipeline.file.parent)
    assert context.choices(2)
    assert context.notes == ()


def test_a_model_without_features_can_be_used(plain: Path) -> None:
    context = open_run(plain)
    assert context.samples is None
    without_samples, without_styles = context.notes
    assert "give the dataset with root" in without_samples
    assert "--model.feature-channels 3" in without_styles
    with pytest.raises(DataError, match="no sample 0"):
        context.sample(0)


def test_a_model_with_a_given_dataset(plain: Path, dataset: Path) -> None:
    context = open_run(plain, root=dataset)
    assert context.sample(0).size == (32, 16)
    assert context.sample(0).styles.instances == {}


def test_a_run_without_its_data_can_be_used(run: Path, tmp_path: Path) -> None:
    context = open_run(run, root=tmp_path / "gone")
    assert context.samples is None
    assert "gone" in context.notes[0]


def test_a_model_of_image_pairs_is_refused(tmp_path: Path) -> None:
    file = write_model(tmp_path / "pairs.safetensors", n_labels=0, instances=False)
    with pytest.raises(ConfigError, match="model of label maps"):
        open_run(file)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_run(tmp_path / "none")


def test_the_demo_knows_its_classes() -> None:
    assert PRESETS["demo"]().model.n_labels == SPEC.n_labels


def test_a_new_object_is_drawn_from_its_class(context: EditorContext) -> None:
    label = next(iter(context.bank.clusters))
    style = context.new_style(label * 1000 + 7, label)
    assert style is not None
    assert style.label == label
    assert style in [choice for choice, _ in context.choices(label)]
    assert context.new_style(9, 9) is None


def test_the_style_of_a_sample_with_photos_of_another_kind(stored_run: Path) -> None:
    pipeline = load(stored_run, device="cpu")
    if pipeline.config.image_channels != 1:
        with pytest.raises(ConfigError, match=r"the editor takes RGB or grey images, but those of .* have \d channels"):
            open_context(pipeline, 10**6)
        return
    data = stored_run.parent / "data"
    label, ids, photo = (next((data / f"test_{part}").glob("s0*")) for part in ("label", "inst", "img"))
    expected = pipeline.encode(photo, label, ids)
    assert read_document(pipeline, 10**6, label, ids, photo).styles == expected
    sample = open_context(pipeline, 10**6).sample(0)  # at the size of training
    assert sample.styles.instances.keys() == expected.instances.keys()
    assert len({style.feature for style in sample.styles.instances.values()}) == len(expected.instances)


def test_a_model_keeps_its_names_without_its_data(plain: Path, tmp_path: Path) -> None:
    kept = DatasetSpec.of_colors(("ground", "sky", "box", "ball"), [(k, k, k) for k in range(4)])
    model, _ = load_model(plain)
    save_model(tmp_path / "named.safetensors", model, extra=classes_entry(kept))
    context = open_run(tmp_path / "named.safetensors")
    assert context.palette.names == kept.classes
    assert [entry["color"] for entry in describe_classes(context)] == ["#000000", "#010101", "#020202", "#030303"]


def test_the_names_of_a_given_dataset_are_shown(plain: Path, make_data: Callable[..., Path]) -> None:
    root = make_data(train=1, test=1)
    (root / "classes.csv").write_text("label,name\n0,a\n1,b\n2,c\n3,d\n")
    assert open_run(plain, root=root).palette.names == ("a", "b", "c", "d")
    (root / "classes.csv").write_text("label,name\n0,a\n")
    context = open_run(plain, root=root)  # its own files can still be edited
    assert context.samples is None
    assert "classes.csv has 1 class, but the model was trained with 4: give the file a line" in context.notes[0]
