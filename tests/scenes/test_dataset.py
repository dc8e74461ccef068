"""The cache of street scenes: files, reuse, and what happens when making it fails or happens twice."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data.class_file import read_classes
from hdgan.data.config import DataConfig, ScenesConfig
from hdgan.errors import ConfigError, HdganError
from hdgan.scenes import SPEC, ensure_scenes, held_out_only, held_out_pairs, render_scene, write_held_out

CONFIG = ScenesConfig(width=48, height=24, train=3, test=2, seed=7)
KINDS = ("label", "inst", "img", "style")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return ensure_scenes(CONFIG, tmp_path_factory.mktemp("cache"))


def test_layout(folder):
    for split, count in (("train", 3), ("test", 2)):
        for kind in KINDS:
            suffix = "json" if kind == "style" else "png"
            names = [f"scene_{index:06d}.{suffix}" for index in range(count)]
            assert sorted(file.name for file in (folder / f"{split}_{kind}").iterdir()) == names
    assert len(list(folder.iterdir())) == 9
    assert read_classes(folder / "classes.csv").classes == SPEC.classes


def test_files_hold_the_scene(folder):
    scene = render_scene(7, "test", 1, 48, 24)
    for kind, array in (("label", scene.label), ("inst", scene.ids), ("img", scene.photo)):
        with Image.open(folder / f"test_{kind}" / "scene_000001.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), array)
            assert picture.mode.startswith({"label": "L", "inst": "I", "img": "RGB"}[kind])


def test_style_file(folder):
    record = json.loads((folder / "train_style" / "scene_000002.json").read_text(encoding="utf-8"))
    assert {key: record[key] for key in ("seed", "split", "index", "size")} == {
        "seed": 7,
        "split": "train",
        "index": 2,
        "size": [48, 24],
    }
    assert record["classes"] == list(SPEC.classes)
    with Image.open(folder / "train_inst" / "scene_000002.png") as picture:
        ids, areas = np.unique(np.asarray(picture), return_counts=True)
    found = {instance["id"]: instance["area"] for instance in record["instances"]}
    assert found == dict(zip(ids.tolist(), areas.tolist(), strict=True))
    assert set(record["instances"][0]) == {"id", "class", "label", "style", "colour", "texture", "area"}


def test_count_does_not_change_a_scene(folder, tmp_path):
    other = ensure_scenes(replace(CONFIG, train=1, test=1), tmp_path)
    for name in ("train_img/scene_000000.png", "test_inst/scene_000000.png", "train_style/scene_000000.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_second_call_reuses(folder):
    def fail(done: int, total: int) -> None:
        raise AssertionError("a scene was drawn again")

    assert ensure_scenes(CONFIG, folder.parents[1], fail) == folder


@pytest.mark.parametrize("change", [{"seed": 8}, {"width": 50}, {"test": 1}])
def test_other_configuration_is_another_folder(folder, change):
    assert ensure_scenes(replace(CONFIG, **change), folder.parents[1]) != folder


def test_progress(tmp_path):
    calls = []
    ensure_scenes(CONFIG, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]


def test_interruption_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_scenes(CONFIG, tmp_path, stop)
    assert list((tmp_path / "scenes").iterdir()) == []
    assert len(list((ensure_scenes(CONFIG, tmp_path) / "train_img").iterdir())) == 3


def test_two_processes_at_once(tmp_path):
    """Another process finishes the same folder while this one is at its last scene."""
    other: list[Path] = []

    def finish_elsewhere(done: int, total: int) -> None:
        if done == total:
            other.append(ensure_scenes(CONFIG, tmp_path))

    folder = ensure_scenes(CONFIG, tmp_path, finish_elsewhere)
    assert other == [folder]
    assert list((tmp_path / "scenes").iterdir()) == [folder]
    assert len(list((folder / "train_img").iterdir())) == 3


def test_cache_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "mine"))
    assert ensure_scenes(CONFIG).is_relative_to(tmp_path / "mine")
    monkeypatch.delenv("HDGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ensure_scenes(CONFIG).is_relative_to(tmp_path / "xdg" / "hdgan")


def test_cache_in_the_home_folder(tmp_path, monkeypatch):
    for name in ("HDGAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert ensure_scenes(CONFIG).is_relative_to(tmp_path / ".cache" / "hdgan")


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HdganError, match="set HDGAN_CACHE"):
        ensure_scenes(CONFIG, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"data\.scenes\.width is 0"),
        ({"height": -5}, r"data\.scenes\.height is -5"),
        ({"width": 1 << 20}, "from 16 to 4096"),
        ({"train": 0}, r"scenes\.train is 0"),
        ({"test": -1}, r"scenes\.test is -1"),
        ({"train": 10**9}, "1000000"),
        ({"seed": -1}, r"scenes\.seed is -1"),
    ],
)
def test_impossible_configuration(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


def test_full_disk_names_the_cache(tmp_path, monkeypatch):
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fill)
        with pytest.raises(
            HdganError, match=r"No space left on device; set HDGAN_CACHE to a writable folder with enough space"
        ):
            ensure_scenes(CONFIG, tmp_path)
    assert list((tmp_path / "scenes").iterdir()) == []


def test_cache_is_not_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waited for the disk"))
    assert ensure_scenes(CONFIG, tmp_path).is_dir()


def test_held_out_scenes_alone(folder, tmp_path):
    calls = []
    write_held_out(CONFIG, tmp_path / "new", lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    written = {file.relative_to(tmp_path / "new") for file in (tmp_path / "new").rglob("*.*")}
    assert written == {Path("classes.csv"), *(file.relative_to(folder) for file in folder.glob("test_*/*"))}
    assert all((tmp_path / "new" / file).read_bytes() == (folder / file).read_bytes() for file in written)
    for pair in held_out_pairs(CONFIG, tmp_path / "new"):
        assert pair.label == tmp_path / "new" / "test_label" / f"{pair.stem}.png"
        assert pair.ids == tmp_path / "new" / "test_inst" / f"{pair.stem}.png"
        assert all(file.is_file() for file in pair.files.values())


def test_held_out_scenes_replace_files_of_their_names_only(folder, tmp_path):
    (tmp_path / "test_label").mkdir()
    ours, other = tmp_path / "test_label" / "scene_000000.png", tmp_path / "test_label" / "mine.png"
    ours.write_bytes(b"old")
    other.write_bytes(b"mine")
    write_held_out(CONFIG, tmp_path)
    assert ours.read_bytes() == (folder / "test_label" / ours.name).read_bytes()
    assert other.read_bytes() == b"mine"


def test_an_interrupted_call_leaves_no_half_scene(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_held_out(CONFIG, tmp_path, interrupt)
    assert not list(tmp_path.iterdir())


def test_a_folder_for_held_out_scenes_that_cannot_be_written(tmp_path):
    (tmp_path / "scenes").touch()
    with pytest.raises(HdganError, match=r"cannot write the scenes into .*scenes: .*; free space or choose another"):
        write_held_out(CONFIG, tmp_path / "scenes")


def test_training_scenes_are_left_out_unless_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path))
    data = DataConfig(scenes=CONFIG)
    assert held_out_only(data) == DataConfig(scenes=replace(CONFIG, train=1))
    assert held_out_only(DataConfig(root=tmp_path)) == DataConfig(root=tmp_path)
    ensure_scenes(CONFIG)
    assert held_out_only(data) == data
