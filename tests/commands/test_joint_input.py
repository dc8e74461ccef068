"""Inputs that have A and B side by side: they are refused where they could be mistaken for A, or A is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands.main import main
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.families.stored_inputs import StoredInputs, inputs_entry

Capture = pytest.CaptureFixture[str]
JOINT = StoredInputs("uint8", "side-by-side", (2.0, 2.0))


def model_of(folder: Path, inputs: StoredInputs) -> Path:
    torch.manual_seed(0)
    small = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    config = Pix2PixHDConfig(n_labels=0, instances=False, feature_channels=0, generator=small)
    save_model(folder / "model.safetensors", Pix2PixHD(config), extra=inputs_entry(inputs))
    return folder / "model.safetensors"


def save(path: Path, width: int, height: int = 16) -> np.ndarray:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments), "--device", "cpu"])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_joint_file_is_refused_before_the_work(tmp_path: Path, capsys: Capture) -> None:
    model = model_of(tmp_path, JOINT)
    save(tmp_path / "test" / "a.png", 32)
    save(tmp_path / "test" / "b.png", 64)
    assert generate(model, "--input", tmp_path / "test", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'test' / 'b.png'} is 64x16, twice as wide for its height as the inputs of {model}" in line
    assert "add --input-has AB if it has both, or --input-has A if all of it is A" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [(), ("--batch-size", 2)])
def test_of_joint_files_the_left_half_is_taken(tmp_path: Path, options: tuple[object, ...], capsys: Capture) -> None:
    model = model_of(tmp_path, JOINT)
    for name in ("a", "b", "c"):
        joint = save(tmp_path / "joint" / f"{name}.png", 64)
        (tmp_path / "A").mkdir(exist_ok=True)
        Image.fromarray(joint[:, :32]).save(tmp_path / "A" / f"{name}.png")
    assert generate(model, "--input", tmp_path / "A", "--out", tmp_path / "expected", *options) == 0
    assert "side by side" not in capsys.readouterr().err
    joint_options = ("--input", tmp_path / "joint", "--input-has", "AB", *options)
    assert generate(model, *joint_options, "--out", tmp_path / "out") == 0
    for name in ("a", "b", "c"):
        assert np.array_equal(pixels(tmp_path / "out" / f"{name}.png"), pixels(tmp_path / "expected" / f"{name}.png"))
        assert pixels(tmp_path / "out" / f"{name}.png").shape == (16, 32, 3)


def test_all_of_a_wide_file_can_be_the_input(tmp_path: Path) -> None:
    model = model_of(tmp_path, JOINT)
    save(tmp_path / "wide.png", 64)
    assert generate(model, "--input", tmp_path / "wide.png", "--input-has", "A", "--out", tmp_path / "x.png") == 0
    assert pixels(tmp_path / "x.png").shape == (16, 64, 3)


def test_a_size_that_does_not_tell_has_a_note(tmp_path: Path, capsys: Capture) -> None:
    model = model_of(tmp_path, StoredInputs("uint8", "side-by-side", (1.0, 2.5)))
    for name in ("x", "y"):
        save(tmp_path / "test" / f"{name}.png", 32)
    assert generate(model, "--input", tmp_path / "test", "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().err.splitlines()
    note = f"{tmp_path / 'test' / 'x.png'} is taken to be A alone, without B on its right: add --input-has AB if"
    assert [line.startswith(note) for line in lines] == [True, False]


@pytest.mark.parametrize("inputs", [StoredInputs("uint8", "ab", (1.0, 1.0)), StoredInputs()])
def test_models_of_other_data_take_any_width(tmp_path: Path, inputs: StoredInputs, capsys: Capture) -> None:
    save(tmp_path / "x.png", 64)
    assert generate(model_of(tmp_path, inputs), "--input", tmp_path / "x.png", "--out", tmp_path / "y.png") == 0
    assert pixels(tmp_path / "y.png").shape == (16, 64, 3)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_files_without_halves_are_named(tmp_path: Path, capsys: Capture) -> None:
    model = model_of(tmp_path, JOINT)
    save(tmp_path / "test" / "a.png", 64)
    save(tmp_path / "test" / "b.png", 63)
    (tmp_path / "test" / "c.png").write_bytes(b"")
    options = ("--input", tmp_path / "test", "--out", tmp_path / "out", "--input-has", "AB")
    assert generate(model, *options) == 2
    assert f"{tmp_path / 'test' / 'b.png'} is 63 pixels wide, which cannot be split" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_the_option_without_effect_is_refused(tmp_path: Path, capsys: Capture) -> None:
    save(tmp_path / "x.png", 64)
    model = model_of(tmp_path, JOINT)
    assert generate(model, "--label", tmp_path / "x.png", "--input-has", "A", "--out", tmp_path / "y.png") == 2
    assert "--input-has A has no effect without --input: leave it out" in capsys.readouterr().err
    tiled = ("--input", tmp_path / "x.png", "--input-has", "AB", "--tile", "64", "--out", tmp_path / "y.png")
    assert generate(model, *tiled) == 2
    assert "--input-has AB does not work in tiles: cut A, the left half, out of each file" in capsys.readouterr().err


def test_samples_of_joint_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    model = model_of(tmp_path, JOINT)
    save(tmp_path / "a.png", 64)
    assert main(["push", str(model), "jane/pairs", "--out", "out", "--input", "a.png", "--device", "cpu"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a.png is 64x16, twice as wide for its height" in line
    assert line.endswith("side by side: cut A, the left half, out of it")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("width", "noted"), [(64, True), (32, False)])
def test_frames_that_may_have_both_have_a_note(tmp_path: Path, capsys: Capture, width: int, noted: bool) -> None:
    model = model_of(tmp_path, JOINT)
    for name in "ab":
        save(tmp_path / "frames" / f"{name}.png", width)
    out = tmp_path / "out.mp4"
    assert main(["video", str(model), "--input", str(tmp_path / "frames"), "--out", str(out), "--device", "cpu"]) == 0
    says = f"is {width}x16, and the model was trained on files that have A and B side by side: all of it is taken to be"
    assert (says in capsys.readouterr().err) == noted
    assert out.is_file()
