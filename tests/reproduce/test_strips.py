"""Strips of images, which stay where another machine adds its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hdgan.data.colors import to_image
from hdgan.inference.pipeline import load
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.strips import GAP, find_strips, write_strips
from hdgan.scenes import scenes_folder
from tests.reproduce.calls import contents, run


def test_a_strip_shows_what_the_run_with_the_lowest_seed_generates(
    folder: Folder, tmp_path: Path, inline: None
) -> None:
    assert run(folder, "crn", seeds=2).finished
    jobs = {("crn", seed): Job(folder, "crn", seed) for seed in (0, 1)}
    strips = tmp_path / "strips"
    write_strips(strips, {}, [])
    assert not strips.exists()
    write_strips(strips, jobs, [])
    assert {file.name for file in strips.iterdir()} == {"label.png", "real.png", "crn-0.png"}
    test, pipeline = scenes_folder(folder.scale.scenes), load(jobs["crn", 0].run, device="cpu")
    photos, made = Image.open(strips / "real.png"), Image.open(strips / "crn-0.png")
    assert photos.size == made.size == (2 * folder.scale.width + GAP, folder.scale.height)
    for column, label in enumerate(sorted((test / "test_label").iterdir())):
        left = column * (folder.scale.width + GAP)
        area = (left, 0, left + folder.scale.width, folder.scale.height)
        photo = Image.open(test / "test_img" / label.name)
        assert np.array_equal(photos.crop(area), photo)
        generated = to_image(pipeline(label, test / "test_inst" / label.name, seed=0) * 2 - 1)
        assert np.array_equal(made.crop(area), generated)


def test_the_strip_of_a_lower_seed_stays_and_replaces_others(folder: Folder, tmp_path: Path, inline: None) -> None:
    assert run(folder, "crn", seeds=2).finished
    strips, first, second = tmp_path / "strips", ("crn", 0), ("crn", 1)
    write_strips(strips, {second: Job(folder, *second)}, [first])  # the first has no strip
    assert find_strips(strips, [first, second])["CRN, seed 1"] == strips / "crn-1.png"
    gan = strips / "gan-1.png"
    gan.touch()
    write_strips(strips, {first: Job(folder, *first)}, [second])
    assert find_strips(strips, [first, second]).keys() == {"Label maps", "Real photos", "CRN, seed 0"}
    assert not (strips / "crn-1.png").exists()
    before = contents(strips)
    write_strips(strips, {second: Job(folder, *second)}, [first])
    after = contents(strips)
    assert before.keys() == after.keys()
    assert all(before[file] == after[file] for file in (gan, strips / "crn-0.png"))
