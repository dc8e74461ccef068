from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.commands.main import main
from hdgan.data import read_map
from hdgan.editor.document import Document
from hdgan.editor.renderer import Renderer
from hdgan.editor.session import Session
from hdgan.editor.storage import document_folder, load_document, read_document, save_document, saved_names
from hdgan.errors import CheckpointError, ConfigError, DataError, HdganError
from hdgan.inference import Pipeline, load
from hdgan.styles import Style, Styles

from .conftest import write_model

LIMIT = 10_000


@pytest.fixture
def saved(session: Session) -> Path:
    """An edited document that was saved."""
    session.randomize()
    session.polygon([(2, 2), (12, 2), (7, 9)], 3)
    return session.save("mine")


def test_a_saved_document_gives_the_same_image(session: Session, saved: Path, pipeline: Pipeline) -> None:
    document = load_document(saved, pipeline, LIMIT)
    np.testing.assert_array_equal(document.label, session.document.label)
    np.testing.assert_array_equal(document.ids, session.document.ids)
    assert document.styles == session.document.styles
    stored = np.asarray(Image.open(saved / "picture.png"))
    np.testing.assert_array_equal(Renderer(pipeline).render(document), stored)


def test_other_commands_accept_the_files(saved: Path, styled: Path, tmp_path: Path) -> None:
    assert Image.open(saved / "instance.png").mode == "I;16"
    assert read_map(saved / "label.png").dtype == np.uint8
    options = ["--label", saved / "label.png", "--instance", saved / "instance.png", "--styles", saved / "styles.json"]
    out = tmp_path / "again.png"
    assert main(["generate", str(styled), *map(str, options), "--out", str(out), "--device", "cpu"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(saved / "picture.png")))


@pytest.mark.parametrize("id", [-1, 65536, 2**31 - 1])
def test_ids_beyond_16_bits_are_kept(tmp_path: Path, pipeline: Pipeline, id: int) -> None:
    label = np.array([[0, 1], [2, 2]])
    document = Document.of(label, np.where(label == 2, id, label))
    save_document(document, np.zeros((2, 2, 3), np.uint8), tmp_path / "wide")
    again = load_document(tmp_path / "wide", pipeline, LIMIT)
    np.testing.assert_array_equal(again.ids, document.ids)


@pytest.mark.parametrize("dontcare", [-1, 255, 300, 65536])
def test_labels_of_no_class_are_kept(tmp_path: Path, dontcare: int) -> None:
    pipeline = load(write_model(tmp_path / "m.safetensors", dontcare=dontcare), device="cpu")
    label = np.array([[0, 1], [2, dontcare]])
    for document in (Document.of(label, np.array([[0, 1], [2000, 9]])), Document.of(label)):
        save_document(document, np.zeros((2, 2, 3), np.uint8), tmp_path / "edits" / "mine")
        assert saved_names(tmp_path / "edits") == ["mine"]
        again = load_document(tmp_path / "edits" / "mine", pipeline, LIMIT)
        np.testing.assert_array_equal(again.label, label)
        np.testing.assert_array_equal(again.ids, document.ids)
    fits = 0 <= dontcare < 65536
    assert (tmp_path / "edits" / "mine" / ("label.png" if fits else "label.npy")).is_file()
    save_document(Document.of(np.array([[0, 1]])), np.zeros((1, 2, 3), np.uint8), tmp_path / "edits" / "mine")
    assert not (tmp_path / "edits" / "mine" / "label.npy").exists()


@pytest.mark.parametrize("name", ["con", "NUL", "aux.png", "Com1", "lpt9.tar.gz", "com¹"])
def test_names_that_windows_reserves_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Windows reserves it"):
        document_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "1", "-".join("abc"), "console", "com10", "my nul", "a.b c-", "ä" * 100])
def test_ordinary_names_are_accepted(name: str, tmp_path: Path) -> None:
    assert document_folder(tmp_path, f" {name} ") == tmp_path / name


@pytest.mark.parametrize("foreign", ["notes.txt", ".hidden", "more/photo.png"])
def test_files_of_other_programs_are_not_deleted(session: Session, saved: Path, foreign: str) -> None:
    before = (saved / "picture.png").read_bytes()
    (saved / foreign).parent.mkdir(exist_ok=True)
    (saved / foreign).write_text("mine")
    session.randomize()
    with pytest.raises(ConfigError, match=r"mine contains .* would delete: move it elsewhere, or choose another name"):
        session.save("mine")
    assert (saved / foreign).read_text() == "mine"
    assert (saved / "picture.png").read_bytes() == before


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini"])
def test_files_of_file_managers_are_deleted(session: Session, saved: Path, name: str) -> None:
    before = (saved / "picture.png").read_bytes()
    (saved / name).write_text("icons")
    session.randomize()
    assert session.save("mine") == saved
    assert (saved / "picture.png").read_bytes() != before
    assert not (saved / name).exists()


def test_saved_documents_are_listed(tmp_path: Path, document: Document) -> None:
    assert saved_names(tmp_path / "none") == []
    for name in ("b", "a", ".hidden"):
        save_document(document, np.zeros((4, 6, 3), np.uint8), tmp_path / name)
    (tmp_path / "other").mkdir()
    assert saved_names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "/etc", ".hidden", "a\0b", "a.", "a. ", "x" * 201, "ä" * 101]
)
def test_names_cannot_lead_to_other_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a valid name"):
        document_folder(tmp_path, name)


def test_names_can_have_spaces_and_any_letters(tmp_path: Path) -> None:
    assert document_folder(tmp_path, " straße 2.b ") == tmp_path / "straße 2.b"


def write_maps(folder: Path, label: np.ndarray, ids: np.ndarray) -> tuple[Path, Path]:
    Image.fromarray(label.astype(np.uint8)).save(folder / "l.png")
    Image.fromarray(ids.astype(np.uint16)).save(folder / "i.png")
    return folder / "l.png", folder / "i.png"


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    label = np.arange(16 * 32).reshape(16, 32) // 128
    return write_maps(tmp_path, label, np.where(label > 1, label * 1000, label))


def test_own_maps_are_opened(maps: tuple[Path, Path], pipeline: Pipeline) -> None:
    document = read_document(pipeline, LIMIT, *maps)
    assert document.classes == {0: 0, 1: 1, 2000: 2, 3000: 3}
    assert document.styles.instances == {}


def test_a_photo_gives_its_styles(maps: tuple[Path, Path], pipeline: Pipeline, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (32, 16), (200, 30, 30)).save(photo)
    document = read_document(pipeline, LIMIT, *maps, photo)
    assert document.styles == pipeline.encode(photo, *maps)


def test_styles_of_another_model_are_refused(saved: Path, pipeline: Pipeline) -> None:
    content = json.loads((saved / "styles.json").read_text())
    (saved / "styles.json").write_text(json.dumps(content | {"encoder": "0" * 16}))
    with pytest.raises(CheckpointError, match="create them with this model"):
        load_document(saved, pipeline, LIMIT)


def test_styles_of_unknown_instances(maps: tuple[Path, Path], pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    style = Style(3, (1.0, 2.0))
    Styles({3001: style}, pipeline.encoder_id).save(file)
    with pytest.raises(ConfigError, match=r"s\.json has styles of instances 3001, but .*i\.png has none of them"):
        read_document(pipeline, LIMIT, *maps, file)
    Styles({3001: style, 3000: style}, pipeline.encoder_id).save(file)
    assert read_document(pipeline, LIMIT, *maps, file).styles.instances == {3000: style}


def test_styles_are_refused_by_a_model_without_features(saved: Path, maps: tuple[Path, Path], plain: Path) -> None:
    with pytest.raises(ConfigError, match="without features"):
        read_document(load(plain, device="cpu"), LIMIT, *maps, saved / "styles.json")


def test_a_model_without_instances_needs_no_instance_map(maps: tuple[Path, Path], tmp_path: Path) -> None:
    pipeline = load(write_model(tmp_path / "m.safetensors", instances=False, feature_channels=2), device="cpu")
    document = read_document(pipeline, LIMIT, maps[0])
    assert document.classes == {0: 0, 1: 1, 2: 2, 3: 3}
    after, id = document.copy(3, 0, -8)
    assert id == 3000
    assert (Renderer(pipeline).render(after) != Renderer(pipeline).render(document)).any()


class TestBadInput:
    def test_no_instance_map(self, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        with pytest.raises(ConfigError, match=r"give one for .*l\.png"):
            read_document(pipeline, LIMIT, maps[0])

    def test_too_large(self, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        with pytest.raises(DataError, match=r"l\.png is 32x16, more than the limit of 500 pixels.* --max-pixels 512"):
            read_document(pipeline, 500, *maps)

    def test_a_photo_is_no_label_map(self, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        Image.new("RGB", (32, 16)).save(maps[0])
        with pytest.raises(DataError, match="mode RGB"):
            read_document(pipeline, LIMIT, *maps)

    def test_a_text_file_is_no_label_map(self, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        maps[0].write_text("not an image")
        with pytest.raises(DataError, match=r"l\.png cannot be read"):
            read_document(pipeline, LIMIT, *maps)

    def test_labels_out_of_range(self, tmp_path: Path, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        Image.fromarray(np.full((16, 32), 9, np.uint8)).save(maps[0])
        with pytest.raises(DataError, match="label 9"):
            read_document(pipeline, LIMIT, *maps)

    def test_maps_of_two_sizes(self, maps: tuple[Path, Path], pipeline: Pipeline) -> None:
        Image.new("L", (16, 16)).save(maps[1])
        with pytest.raises(DataError, match=r"32x16, but .*i\.png is 16x16"):
            read_document(pipeline, LIMIT, *maps)

    def test_damaged_styles(self, maps: tuple[Path, Path], pipeline: Pipeline, tmp_path: Path) -> None:
        (tmp_path / "s.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"s\.json is damaged"):
            read_document(pipeline, LIMIT, *maps, tmp_path / "s.json")

    def test_an_unwritable_folder(self, session: Session, tmp_path: Path) -> None:
        (tmp_path / "edits").write_text("a file where the folder should be")
        with pytest.raises(HdganError, match="cannot write"):
            session.save("mine")
