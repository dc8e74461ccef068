"""The frames of a video: their order, their parts, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.data import read_map
from hdgan.data.frames import open_frames
from hdgan.data.opening import NamedArray, named
from hdgan.errors import DataError
from tests.data.test_map_video import maps_of, write_maps


def write_folder(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        Image.fromarray(np.zeros((4, 8), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = ["f10", "f9", "f1", "a2b", "a10", "f009x"]
    frames = open_frames({"label": write_folder(tmp_path / "maps", names)})
    assert frames.length == 6
    assert frames.rate is None
    read = [source.stem for source, _ in frames.read(range(6)) if isinstance(source, Path)]
    assert read == ["a2b", "a10", "f1", "f9", "f009x", "f10"]
    assert [source.stem for source, _ in frames.read([1, 5]) if isinstance(source, Path)] == ["a10", "f10"]


def test_instance_maps_belong_to_the_frame_of_their_name(tmp_path):
    labels = write_folder(tmp_path / "maps", ["f1", "f2"])
    ids = write_folder(tmp_path / "ids", ["f2", "f1"])
    frames = open_frames({"label": labels, "ids": ids})
    assert list(frames.read([0, 1])) == [(labels / f"f{k}.png", ids / f"f{k}.png") for k in (1, 2)]
    (ids / "f2.png").unlink()
    with pytest.raises(DataError, match=r"f2\.png: no instance map named f2 .*; a frame of a video needs all of"):
        open_frames({"label": labels, "ids": ids})


def test_inputs_are_frames_as_well(tmp_path):
    folder = write_folder(tmp_path / "in", ["f1", "f2"])
    assert list(open_frames({"input": folder}).read([1])) == [(folder / "f2.png", None)]


def test_changed_files_change_the_fingerprint(tmp_path):
    folder = write_folder(tmp_path / "maps", ["f1", "f2"])
    before = open_frames({"label": folder}).fingerprint()
    assert open_frames({"label": folder}).fingerprint() == before
    os.utime(folder / "f2.png", (1, 1))
    assert open_frames({"label": folder}).fingerprint() != before


@pytest.mark.video
def test_videos_of_maps(tmp_path):
    labels, ids = maps_of("uint8"), maps_of("uint16")
    sources = {"label": write_maps(tmp_path / "l.mkv", labels), "ids": write_maps(tmp_path / "i.mkv", ids)}
    frames = open_frames(sources)
    assert (frames.length, frames.rate) == (6, 25)
    for number, (label, of) in zip([2, 3], frames.read([2, 3]), strict=True):
        assert isinstance(label, NamedArray)
        assert isinstance(of, NamedArray)
        assert named(label) == f"{sources['label']}, frame {number}"
        np.testing.assert_array_equal(read_map(label), labels[number])
        np.testing.assert_array_equal(read_map(of, "instance map"), ids[number])
    alone = open_frames({"label": sources["label"]})
    assert [of for _, of in alone.read(range(6))] == [None] * 6
    assert alone.fingerprint() != frames.fingerprint()
    write_maps(tmp_path / "i.mkv", ids[:4])
    with pytest.raises(DataError, match=r"l.mkv has 6 frames, but .*i.mkv has 4 frames: give videos of the same fram"):
        open_frames(sources)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"label": "no"}, "^label .*no does not exist"),
        ({"label": "maps", "ids": "no"}, "^instance .*no does not exist"),
        ({"label": "maps/f1.png"}, "f1.png is a single file: give a folder with a file for each frame, or a video"),
        (
            {"label": "maps", "ids": "x.mkv"},
            "maps is a folder but .*x.mkv is a video: give only folders or only",
        ),
        ({"input": "x.mkv"}, "x.mkv is a video, but inputs are read from a folder: `ffmpeg -i VIDEO"),
        ({"label": "empty"}, "empty contains no "),
    ],
)
def test_sources_that_are_no_frames(sources, message, tmp_path):
    write_folder(tmp_path / "maps", ["f1"])
    write_folder(tmp_path / "empty", [])
    (tmp_path / "x.mkv").touch()
    with pytest.raises(DataError, match=message):
        open_frames({part: tmp_path / name for part, name in sources.items()})


def test_derived_arrays_keep_their_name():
    array = NamedArray.of(np.zeros((2, 3)), "x.mkv, frame 1")
    assert named(array[:1]) == "x.mkv, frame 1"
    assert named(np.zeros(3)) == "the given ndarray"
