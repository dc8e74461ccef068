"""`hdgan data convert` and `hdgan data palette`: what they print, and how they name their options."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.commands.data_convert import training_command
from hdgan.commands.main import main, train_main
from hdgan.data import DatasetSpec
from hdgan.data.class_file import write_classes
from hdgan.data.conversion import ConversionReport, ConversionSummary
from hdgan.training import TrainConfig, TrainResult

COLORS = np.array([[10, 20, 30], [200, 0, 0]], np.uint8)
LABEL = np.array([[0, 0, 1], [0, 1, 0]], np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for phase in ("train", "val"):
        for folder, pixels in (("images", np.zeros((2, 3, 3), np.uint8)), ("labels", COLORS[LABEL])):
            (tmp_path / "source" / folder / phase).mkdir(parents=True)
            Image.fromarray(pixels.repeat(16, 0).repeat(16, 1)).save(tmp_path / "source" / folder / phase / "a.png")
    return tmp_path / "source"


def test_from_colours_to_the_command_that_trains(source, tmp_path, capsys) -> None:
    csv, out = tmp_path / "classes.csv", tmp_path / "out"
    assert main(["data", "palette", str(source), "--out", str(csv)]) == 0
    shown = capsys.readouterr().out
    assert "66.667" in shown
    assert "2 colours of 2 label maps; name the classes in it" in shown
    assert csv.read_text() == "label,name,color\n0,class 0,#0a141e\n1,class 1,#c80000\n"
    csv.write_text(csv.read_text().replace("class 0", "road").replace("class 1", "void"))
    assert main(["data", "convert", str(source), "--out", str(out), "--classes", str(csv), "--dontcare", "void"]) == 0
    printed = capsys.readouterr()
    assert "2 samples (colors)" in printed.err
    assert "void (no class)" in printed.out
    assert "1 train and 1 val samples" in printed.out
    command = f"hdgan-train demo --data.root {out} --out runs/out --n-labels 2 --dontcare 1 --no-instances --size 48"
    assert f"train: {command}" in printed.out
    assert main(["data", "check", str(out), "--n-labels", "2"]) == 0
    capsys.readouterr()
    assert main(["data", "convert", str(source), "--out", str(out), "--classes", str(csv), "--dontcare", "void"]) == 0
    assert "1 train and 1 val samples, 2 of them already converted" in capsys.readouterr().out


def test_without_training_samples_no_training_is_suggested(source, tmp_path, capsys) -> None:
    csv, names = tmp_path / "classes.csv", tmp_path / "val.txt"
    csv.write_text("label,name,color\n0,road,#0a141e\n1,car,#c80000\n")
    for folder in ("images", "labels"):
        (source / folder / "train" / "a.png").rename(source / folder / "a.png")
        for phase in ("train", "val"):
            shutil.rmtree(source / folder / phase)
    names.write_text("a\n")
    out = ["--out", str(tmp_path / "out"), "--val-list", str(names)]
    assert main(["data", "convert", str(source), "--classes", str(csv), *out]) == 0
    shown = capsys.readouterr().out
    assert "1 val samples" in shown
    assert "there are no training samples" in shown
    assert "hdgan-train" not in shown


def test_errors_name_the_options_of_the_command(source, tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")]
    csv = tmp_path / "classes.csv"
    csv.write_text("label,name,color\n0,road,#0a141e\n1,car,#000000\n")
    classes = ["--classes", str(csv)]
    for typed, message in (
        ([], "--classes classes.csv reads it"),
        (classes, "give --nearest to accept similar colours"),
        ([*classes, "--nearest", "500"], "--nearest is 500: give a whole number from 1 to 441"),
        ([*classes, "--stuff", "road"], "--stuff has no effect on a source of the format colors: leave it out"),
        (
            [*classes, "--val-fraction", "0.5"],
            "--val-fraction has no effect, since the source has the phases train, val",
        ),
        (["--format", "cvat"], "contains no XML file of CVAT"),
        (["--val-fraction", "2"], "--val-fraction is 2.0: give a number from 0"),
    ):
        assert main(["data", "convert", str(source), *out, *typed]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_names_of_classes_are_printed_as_they_are(source, tmp_path, capsys) -> None:
    file = tmp_path / "classes.csv"
    write_classes(file, DatasetSpec.of_colors(["[/red]", ":car: [bold]x"], COLORS.tolist()))
    assert main(["data", "convert", str(source), "--classes", str(file), "--out", str(tmp_path / ":car:")]) == 0
    printed = capsys.readouterr().out
    assert "[/red]" in printed
    assert ":car: [bold]x" in printed
    assert f"--data.root {tmp_path}/:car:" in printed


def test_a_palette_never_replaces_a_file(source, tmp_path, capsys) -> None:
    csv = tmp_path / "classes.csv"
    csv.write_text("mine")
    assert main(["data", "palette", str(source), "--out", str(csv)]) == 2
    assert f"--out {csv} exists: choose another, or remove it" in capsys.readouterr().err
    assert csv.read_text() == "mine"
    csv.unlink()
    assert main(["data", "palette", str(source), "--out", str(csv), "--top", "0"]) == 2
    assert "--top is 0: give a whole number from 1" in capsys.readouterr().err
    assert main(["data", "palette", str(source), "--out", str(csv), "--top", "1"]) == 0
    assert "other colours have 33.333 % of the pixels" in capsys.readouterr().out


MANY = {"train": 3000}


@pytest.mark.parametrize(
    ("summary", "command"),
    [
        (ConversionSummary(MANY, width=2048), "hdgan-train pairs --data.root 'my data'"),
        (ConversionSummary(MANY, width=256), "hdgan-train pairs-pix2pix --data.root 'my data'"),
        (
            ConversionSummary(MANY, width=640, n_labels=3),
            "hdgan-train cityscapes-512p --data.root 'my data' --n-labels 3 --no-instances --size 640",
        ),
        (
            ConversionSummary(MANY, width=2048, n_labels=9, divisor=10_000, dontcare=0, instances=True),
            "hdgan-train cityscapes-512p --data.root 'my data' --n-labels 9 --dontcare 0 --data.instance-divisor 10000",
        ),
        (
            ConversionSummary({"train": 40}, width=2048, n_labels=3, instances=True),
            "hdgan-train demo --data.root 'my data' --out 'runs/my data' --n-labels 3 --size 256",
        ),
        (
            ConversionSummary(MANY, width=200, n_labels=3),
            "hdgan-train demo --data.root 'my data' --out 'runs/my data' --n-labels 3 --no-instances --size 200",
        ),
    ],
)
def test_the_command_that_trains(monkeypatch, summary, command) -> None:
    configs: list[TrainConfig] = []

    def train(config: TrainConfig, *, resume: bool) -> TrainResult:
        configs.append(config)
        return TrainResult(finished=True, step=1, total_steps=1, report=None)

    monkeypatch.setattr("hdgan.commands.train.train", train)
    assert training_command(ConversionReport(Path("my data"), summary, None, 1, 0)) == command
    assert train_main(shlex.split(command)[1:]) == 0
    (config,) = configs
    assert config.data.root == Path("my data")
    assert config.model.n_labels == summary.n_labels
    assert (config.data.dontcare, config.data.instance_divisor) == (summary.dontcare, summary.divisor)
    assert config.model.instances == (summary.instances and bool(summary.n_labels))
