"""`hdgan generate`, from files and from folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands.main import main
from hdgan.data import read_input, to_unit_range
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.inference import load
from hdgan.scenes import render_scene

Capture = pytest.CaptureFixture[str]


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu"])


def refused(capsys: Capture, *arguments: object) -> str:
    """The one line that the command fails with."""
    assert generate(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdgan: error: ")
    return line


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image).astype(int)


def test_a_file_becomes_the_picture_of_the_pipeline(run: Path, dataset: Path, tmp_path: Path) -> None:
    label, ids, photo = (
        dataset / name for name in ("test_label/s0_label.png", "test_inst/s0_inst.tif", "test_img/s0_img.png")
    )
    assert generate(run, "--label", label, "--instance", ids, "--out", tmp_path / "x.png") == 0
    assert generate(run, "--label", label, "--instance", ids, "--photo", photo, "--out", tmp_path / "folder") == 0
    pipeline = load(run, device="cpu")
    for name, picture in (
        ("x.png", pipeline(label, ids)), ("folder/s0_label.png", pipeline(label, ids, photo=photo))
    ):  # fmt: skip
        expected = (picture.permute(1, 2, 0) * 255).numpy()
        assert pixels(tmp_path / name).shape == (16, 32, 3)
        np.testing.assert_allclose(pixels(tmp_path / name), expected, atol=1)


def test_folders_are_paired_by_name_and_orphans_told(
    run: Path, make_data: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    root = make_data(test=3, size=(33, 17))
    (root / "test_inst" / "s1_inst.tif").unlink()
    assert (
        generate(run, "--label", root / "test_label", "--instance", root / "test_inst", "--out", tmp_path / "out") == 0
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s0.png", "s2.png"]
    assert pixels(tmp_path / "out" / "s2.png").shape == (17, 33, 3)
    said = capsys.readouterr().err
    assert "left out: " in said
    assert "s1_label.png: no instance map named s1" in said
    assert "2 images in " in said


def test_the_options_of_the_model(run: Path, dataset: Path, tmp_path: Path) -> None:
    sources = ("--label", dataset / "test_label/s0_label.png", "--instance", dataset / "test_inst/s0_inst.tif")
    variants = {
        "latest": (), "best": ("--checkpoint", "best"), "6": ("--checkpoint", "6"), "raw": ("--no-ema",),
        "bfloat16": ("--precision", "bfloat16"), "float16": ("--precision", "float16"),
    }  # fmt: skip
    for name, options in variants.items():
        assert generate(run, *sources, "--out", tmp_path / f"{name}.png", *options) == 0
    pictures = {name: pixels(tmp_path / f"{name}.png") for name in variants}
    for name in ("6", "raw"):
        assert not np.array_equal(pictures[name], pictures["latest"])
    np.testing.assert_allclose(pictures["bfloat16"], pictures["latest"], atol=12)
    np.testing.assert_allclose(pictures["float16"], pictures["latest"], atol=2)


def test_a_model_trained_on_pairs_takes_inputs(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    torch.manual_seed(0)
    config = Pix2PixHDConfig(n_labels=0, instances=False, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1))
    file = tmp_path / "model.safetensors"
    save_model(file, Pix2PixHD(config))
    photo, label = dataset / "test_img/s0_img.png", dataset / "test_label/s0_label.png"
    assert generate(file, "--input", photo, "--out", tmp_path / "x.png") == 0
    assert generate(file, "--input", dataset / "test_img", "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    expected = (load(file, device="cpu")(photo).permute(1, 2, 0) * 255).numpy()
    np.testing.assert_allclose(pixels(tmp_path / "x.png"), expected, atol=1)
    capsys.readouterr()
    assert "generates images from input files: give --input" in refused(capsys, file, "--label", label, "--out", "x")
    for option in ("--label", "--instance"):
        line = refused(capsys, file, "--input", photo, option, label, "--out", "x")
        assert f"{option} {label} has no effect on the images" in line


def test_sources_that_do_not_fit_are_named(run: Path, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    labels, ids = dataset / "test_label", dataset / "test_inst"
    one = labels / "s0_label.png"
    assert "generates images from label files: give --label" in refused(capsys, run, "--out", tmp_path)
    line = refused(capsys, run, "--label", one, "--instance", ids, "--out", tmp_path)
    assert f"{ids} is a folder but {one} is a file" in line
    line = refused(capsys, run, "--label", tmp_path / "no.png", "--instance", ids, "--out", tmp_path)
    assert "no.png does not exist" in line
    (tmp_path / "empty").mkdir()
    line = refused(capsys, run, "--label", tmp_path / "empty", "--instance", ids, "--out", tmp_path)
    assert "empty contains no images" in line
    line = refused(capsys, run, "--label", labels, "--instance", ids, "--out", tmp_path / "x.png")
    assert "x.png is one file, but there are 2 label maps" in line
    (tmp_path / "x.txt").write_text("")
    line = refused(capsys, run, "--label", labels, "--instance", ids, "--out", tmp_path / "x.txt")
    assert "x.txt is a file, but not a .png" in line
    assert "the model was trained with instance maps" in refused(capsys, run, "--label", one, "--out", tmp_path)
    line = refused(capsys, run, "--label", labels, "--instance", ids, "--out", tmp_path / "x.jpg")
    assert "x.jpg: images are written as PNG" in line
    line = refused(capsys, run, "--label", labels, "--instance", ids, "--input", labels, "--out", tmp_path)
    assert f"--input {labels} has no effect on the images of {run}: leave it out" in line


def test_a_label_map_is_never_overwritten(run: Path, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(dataset / "test_label/s0_label.png", tmp_path / "s0.png")
    before = (tmp_path / "s0.png").read_bytes()
    ids = dataset / "test_inst/s0_inst.tif"
    for out in (tmp_path, tmp_path / "s0.png"):
        line = refused(capsys, run, "--label", tmp_path / "s0.png", "--instance", ids, "--out", out)
        assert "s0.png is an input and would be overwritten" in line
    assert (tmp_path / "s0.png").read_bytes() == before


@pytest.mark.parametrize(("factor", "noted"), [(1, False), (1.5, False), (2, True)])
def test_maps_far_from_the_size_of_training_are_noted(
    factor: float, noted: bool, run: Path, dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    paths = []
    for name in ("test_label/s0_label.png", "test_inst/s0_inst.tif"):
        with Image.open(dataset / name) as image:
            paths.append(tmp_path / Path(name).name)
            image.resize((int(image.width * factor), int(image.height * factor)), Image.Resampling.NEAREST).save(
                paths[-1]
            )
    assert generate(run, "--label", paths[0], "--instance", paths[1], "--out", tmp_path / "x.png") == 0
    said = capsys.readouterr().err
    assert ("is 64x32, but the model was trained on images 32 pixels wide" in said) == noted
    assert ("trained on images" in said) == noted


def test_images_have_the_channels_and_bits_of_the_photos(stored_run: Path, tmp_path: Path) -> None:
    data = stored_run.parent / "data"
    assert (
        generate(stored_run, "--label", data / "test_label", "--instance", data / "test_inst", "--out", tmp_path) == 0
    )
    pipeline = load(stored_run, device="cpu")
    for photo in (data / "test_img").iterdir():
        name = photo.name.replace("_img", "")
        label, ids = (data / f"test_{part}" / f"s{name[1]}_{part}" for part in ("label", "inst"))
        expected = pipeline(label.with_suffix(".png"), ids.with_suffix(".tif")) * 2 - 1
        image = read_input(tmp_path / name)
        assert image.dtype == read_input(photo).dtype
        assert image.shape == read_input(photo).shape
        step = {"uint16": 1 / 32767.5, "float32": 1e-6}[image.dtype.name]
        np.testing.assert_allclose(to_unit_range(image), expected.permute(1, 2, 0).numpy(), atol=step)


def test_the_style_of_a_photo_of_the_same_kind(stored_run: Path, tmp_path: Path, capsys: Capture) -> None:
    data = stored_run.parent / "data"
    photo = next((data / "test_img").glob("s0_*"))
    sources = ("--label", data / "test_label/s0_label.png", "--instance", data / "test_inst/s0_inst.tif")
    assert generate(stored_run, *sources, "--photo", photo, "--out", tmp_path) == 0
    other = tmp_path / "four.png"
    Image.fromarray(np.zeros((16, 32, 4), np.uint8)).save(other)
    assert generate(stored_run, *sources, "--photo", other, "--out", tmp_path / "out") == 2
    assert "four.png has 4 channels: give a photo with" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_has_the_ending_of_its_kind(stored_run: Path, tmp_path: Path, capsys: Capture) -> None:
    data = stored_run.parent / "data"
    sources = ("--label", data / "test_label/s0_label.png", "--instance", data / "test_inst/s0_inst.tif")
    right, wrong = (".png", ".tif") if next((data / "test_img").iterdir()).suffix == ".png" else (".tif", ".png")
    kind = {".png": "PNG", ".tif": "TIFF"}[right]
    assert generate(stored_run, *sources, "--out", tmp_path / f"x{right}") == 0
    capsys.readouterr()
    line = refused(capsys, stored_run, *sources, "--out", tmp_path / f"y{wrong}")
    assert f"y{wrong}: images are written as {kind}; give a file that ends in {right}, or a folder" in line


def test_scenes_are_drawn_for_a_model_that_knows_them(shipped: Path, capsys: Capture) -> None:
    assert generate("demo", "--scenes", 2, "--out", "out") == 0
    assert "2 images in " in capsys.readouterr().err
    folder = Path("out")
    assert {path.name for path in folder.iterdir()} == {"scenes", "scene_000000.png", "scene_000001.png"}
    maps = {part: folder / "scenes" / f"test_{part}" for part in ("label", "inst", "img", "style")}
    assert sorted((folder / "scenes").iterdir()) == sorted([folder / "scenes" / "classes.csv", *maps.values()])
    for k in range(2):
        name = f"scene_{k:06d}.png"
        with Image.open(maps["label"] / name) as label:
            np.testing.assert_array_equal(np.asarray(label), render_scene(0, "test", k, 32, 16).label)
        expected = load(shipped, device="cpu")(maps["label"] / name, maps["inst"] / name).permute(1, 2, 0) * 255
        np.testing.assert_allclose(pixels(folder / name), expected.numpy(), atol=1)
    first = pixels(folder / "scene_000000.png")
    assert generate("demo", "--scenes", 1, "--out", "out") == 0
    np.testing.assert_array_equal(pixels(folder / "scene_000000.png"), first)


def test_scenes_written_once_are_maps_like_others(shipped: Path) -> None:
    assert generate("demo", "--scenes", 2, "--out", "a") == 0
    maps = ("--label", "a/scenes/test_label", "--instance", "a/scenes/test_inst")
    assert generate("demo", *maps, "--photo", "a/scenes/test_img", "--out", "b") == 0
    assert generate("demo", *maps, "--out", "c") == 0
    np.testing.assert_array_equal(pixels(Path("a/scene_000001.png")), pixels(Path("c/scene_000001.png")))


def test_scenes_that_cannot_be_are_refused(
    shipped: Path, run: Path, label: Path, photo: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = refused(capsys, "demo", "--out", "x")
    assert line.endswith("generates images from label files: give --label, or --scenes 8 for maps of built-in scenes")
    assert "give --label" in (line := refused(capsys, run, "--out", "x"))
    assert "--scenes" not in line
    assert "--scenes is 0: give a whole number from 1" in refused(capsys, "demo", "--scenes", 0, "--out", "x")
    for option, file in (("--label", label), ("--photo", photo)):
        line = refused(capsys, "demo", "--scenes", 2, option, file, "--out", "x")
        assert f"--scenes draws maps and photos of its own: leave --scenes or {option} out" in line
    assert "--out x.png is one file" in refused(capsys, "demo", "--scenes", 1, "--out", "x.png")
    untrained = tmp_path / "untrained.safetensors"
    save_model(untrained, load_model(shipped)[0])
    for model in (run, untrained):
        line = refused(capsys, model, "--scenes", 2, "--out", "x")
        assert f"{model} was not trained on the built-in scenes" in line
    assert list(Path().iterdir()) == []
