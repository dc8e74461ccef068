"""`hdgan data`: what the commands print, and how they name their own options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.commands.data import check
from hdgan.commands.main import main
from hdgan.data import DataConfig, PairedDataset, SizeConfig, find_pairs
from hdgan.data.layouts.packed import PackedPair
from hdgan.training.run_folder import load_environment


def test_check(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(dataset, n_labels=4) == 0
    assert "no faults; --n-labels 4 or more covers every label" in capsys.readouterr().out
    assert check(dataset, n_labels=3, phase=("train",)) == 1
    assert "contains label 3, but --n-labels is 3; set --n-labels to at least 4" in capsys.readouterr().out


def test_check_names_its_own_options(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(dataset, n_labels=4, size=SizeConfig(crop_width=33)) == 1
    assert "set a smaller --size.crop-width and --size.crop-height, or a larger --size.width" in capsys.readouterr().out


def test_a_fault_of_many_files_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"train_label": np.full((4, 4), 7, np.uint8), "train_img": np.zeros((4, 4, 3), np.uint8)}
    for folder, pixels in parts.items():
        (tmp_path / folder).mkdir()
        for name in range(6):
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    typed = ["data", "check", str(tmp_path), "--n-labels", "3"]
    assert main([*typed, "--instances"]) == 1
    said = capsys.readouterr().out
    assert said.count("contains label 7") == 1
    assert "fault: the same in train_label/1.png, train_label/2.png, train_label/3.png and 2 more\n" in said
    assert "--all-faults prints a line for each file with a fault\n" in said
    assert "has no instance maps for phase train: add them, or train with --no-instances\n" in said
    assert "set --dontcare 7 here and in training\n" in said
    assert "7 faults" in said
    assert main([*typed, "--all-faults"]) == 1
    said = capsys.readouterr().out
    assert said.count("contains label 7") == 6
    assert "--all-faults" not in said
    assert "there are no instance maps: train with --no-instances\n" in said


def test_pack(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "packed"
    command = ["data", "pack", str(dataset), "--out", str(out), "--width", "20", "16", "--height", "12", "8"]
    assert main([*command, "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert "8 samples, " in shown.out
    assert f"train with --data.root {out}" in " ".join(shown.out.split())
    assert "8 samples, about " in shown.err
    assert main(["data", "check", str(out)]) == 0
    data = DataConfig(root=out)
    packed = PairedDataset(find_pairs(data, "train").pairs, data, SizeConfig(width=16, height=8), 4)
    assert packed[0]["photo"].shape == (3, 8, 16)
    for options, message in (
        (
            ["--width", "20", "16", "--height", "12"],
            "2 widths, but 1 height: give a height for each width, or no heights",
        ),
        (["--workers", "0"], "--workers is 0: give a whole number from 1 to 1024"),
    ):
        assert main(["data", "pack", str(dataset), "--out", str(tmp_path / "other"), *options]) == 2
        assert message in capsys.readouterr().err


def test_heights_alone_keep_the_aspect_ratio(tmp_path: Path) -> None:
    (tmp_path / "street" / "train_label").mkdir(parents=True)
    Image.fromarray(np.zeros((23, 37), np.uint8)).save(tmp_path / "street" / "train_label" / "a.png")
    assert main(["data", "pack", str(tmp_path / "street"), "--out", str(tmp_path / "packed"), "--height", "12"]) == 0
    (pair,) = find_pairs(DataConfig(root=tmp_path / "packed"), "train").pairs
    assert isinstance(pair, PackedPair)
    assert pair.entry.sizes == ((19, 12),)
    assert pair.entry.source == (37, 23)


@pytest.mark.parametrize("typed", ["--width -1", "--height 0", f"--width 1{'0' * 20}", f"--n-labels 1{'0' * 20}"])
def test_numbers_out_of_bounds_are_refused(typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", str(tmp_path), "--out", str(tmp_path / "out"), *typed.split()]) == 2
    assert f"{typed.split()[0]} is " in capsys.readouterr().err


def test_photos_as_stored_are_checked_and_packed(
    stored_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, kind = stored_run.parent / "data", load_environment(stored_run).photos
    assert main(["data", "check", str(data), "--photo", "stored"]) == 0
    assert f"photos: {kind}" in capsys.readouterr().out
    out = str(tmp_path / "packed")
    assert main(["data", "pack", str(data), "--out", out, "--photo", "stored", "--width", "16"]) == 0
    assert main(["data", "check", out, "--photo", "stored"]) == 0
    capsys.readouterr()
    assert main(["data", "check", out]) == 2
    assert "was packed with photos as stored, not rgb: set --photo stored, or pack again" in capsys.readouterr().err


def test_photos_of_floats_name_the_option(stored_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    floats = load_environment(stored_run).photos == "2 channels of float32"
    assert main(["data", "check", str(stored_run.parent / "data")]) == int(floats)
    said = capsys.readouterr().out
    assert ("or set --photo stored to train on its values as they are" in said) == floats
    assert ("train with --data.photo stored to keep them as they are" in said) != floats
