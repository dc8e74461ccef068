"""`hdgan evaluate`, from a trained run to the page."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hdgan.commands.evaluate import _print as print_table
from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.families import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import load_model, save_model
from hdgan.inference import load
from hdgan.metrics.scores import METRICS, ORACLE, RunScores
from hdgan.models.segmenter import load_segmenter
from hdgan.training import load_config

Capture = pytest.CaptureFixture[str]
TRAINING = ("--train-scorer", "--scorer-training.steps", "2", "--scorer-training.width", "2")


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu"])


def refused(capsys: Capture, *arguments: object) -> str:
    """The one line that the command fails with."""
    assert evaluate(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdgan: error: ")
    return line


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    generator = GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1)
    save_model(tmp_path / "other.safetensors", Pix2PixHD(Pix2PixHDConfig(n_labels=4, generator=generator)))
    return tmp_path / "other.safetensors"


def test_a_scorer_is_trained_and_the_runs_are_scored(run: Path, other: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert evaluate(run, other, *TRAINING, "--out", out, "--pictures", "1") == 0
    names = ["class_scores.csv", "evaluation.html", "scorer.safetensors", "scores.csv"]
    assert sorted(path.name for path in out.iterdir()) == names
    said = capsys.readouterr().out
    assert "mean IoU ↑" in said
    assert "pip install torchmetrics[image]" in said
    assert said.splitlines()[-1] == str(out / "evaluation.html")

    scores = rows(out / "scores.csv")
    assert [row["run"] for row in scores] == ["real photos", "finished", "other.safetensors"]
    assert all(float(row["psnr"]) > 0 and 0 <= float(row["miou"]) <= 1 for row in scores[1:])
    assert [scores[1][name] for name in ("lpips", "fid", "kid")] == ["", "", ""]
    about = [(row["scorer"], row["phase"], row["pictures"]) for row in scores]
    assert about == [(str(out / "scorer.safetensors"), "test", "2")] * 3
    assert scores[1]["notes"].startswith(
        "lpips: its AlexNet needs images of at least 32 pixels per side; fid: needs torchvision"
    )
    classes = rows(out / "class_scores.csv")
    assert [(row["run"], row["class"]) for row in classes[:5]] == [
        *(("real photos", str(k)) for k in range(4)), ("finished", "0")
    ]  # fmt: skip
    assert sum(int(row["pixels"]) for row in classes[:4]) == 2 * 32 * 16
    assert [(row["scorer"], row["phase"], row["pictures"]) for row in classes] == [about[0]] * 12

    # Without an option the scorer in the folder is used; it is not overwritten.
    before = (out / "scorer.safetensors").read_bytes()
    assert evaluate(run, other, "--out", out) == 0
    assert rows(out / "scores.csv") == scores
    assert "scorer.safetensors already exists" in refused_after(capsys, run, *TRAINING, "--out", out)
    assert (out / "scorer.safetensors").read_bytes() == before

    # What an evaluation did not measure is not left of an earlier one.
    (out / "scorer.safetensors").unlink()
    assert evaluate(run, "--out", out, "--pictures", "0") == 0
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.html", "scores.csv"]


def refused_after(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    return refused(capsys, *arguments)


def test_the_page_needs_no_other_file(run: Path, other: Path, scorer: Path, tmp_path: Path) -> None:
    assert evaluate(run, other, "--scorer", scorer, "--out", tmp_path, "--pictures", "1") == 0
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    # One example: label map, photo and two images; below each of the three what was recognised in it.
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "label map", "real photos", "real photos, recognised", "finished", "finished, recognised",
        "other.safetensors", "other.safetensors, recognised",
    ]  # fmt: skip
    assert page.count('class="number best"') >= 2
    assert "{{" not in page
    assert not (tmp_path / "scorer.safetensors").exists()


def test_a_scorer_can_be_trained_without_a_run(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "s.safetensors"
    options = ("--root", dataset, "--n-labels", 4, "--width", 16)
    assert evaluate(*TRAINING, *options, "--scorer", file) == 0
    assert load_segmenter(file).config.n_labels == 4
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    assert "no run is given" in refused_after(capsys, *options)


def test_bad_input_ends_in_one_line(
    run: Path, scorer: Path, make_data: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    root = make_data("empty", test=0)
    (root / "test_label").mkdir()
    assert "test_label contains no images" in refused(capsys, run, "--root", root, "--out", tmp_path)
    (tmp_path / "none").mkdir()
    assert "none contains no checkpoint" in refused(capsys, tmp_path / "none", "--out", tmp_path)
    torch.manual_seed(0)
    nine = Pix2PixHDConfig(n_labels=9, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1))
    save_model(tmp_path / "nine.safetensors", Pix2PixHD(nine))
    line = refused(capsys, tmp_path / "nine.safetensors", "--root", root, "--phase", "train", "--scorer", scorer)
    assert "scorer.safetensors has 4 classes, but the label maps have 9" in line
    for name in ("s0", "s1"):
        (file,) = (root / "train_label").glob(f"{name}*")
        Image.fromarray(np.full((16, 32), 7, np.uint8)).save(file)
    line = refused(capsys, run, "--root", root, "--phase", "train", "--out", tmp_path)
    assert "contains label 7, but the model has labels 0 to 3: map it to one of these" in line
    assert "--width is 0: give a whole number from 1" in refused(capsys, run, "--width", "0", "--out", tmp_path)
    assert "--pictures is -1: give a whole number from 0" in refused(capsys, run, "--pictures", "-1", "--out", tmp_path)


def test_all_runs_are_opened_before_a_scorer_is_trained(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out, none = tmp_path / "out", tmp_path / "none.safetensors"
    assert "none.safetensors" in refused(capsys, run, none, *TRAINING, "--out", out)
    assert "--pictures is -1" in refused(capsys, run, *TRAINING, "--pictures", "-1", "--out", out)
    assert "val_label does not exist" in refused(capsys, run, *TRAINING, "--phase", "val", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n-labels", "7"), "--n-labels has no effect with a run, which defines its own: leave it out"),
        (("--dontcare", "3"), "--dontcare has no effect with a run, which defines its own"),
        (("--scorer-training.steps", "9"), "--scorer-training has no effect without --train-scorer"),
        (("--scorer-range", "unit"), "--scorer-range has no effect except with a --scorer of your own"),
        (("--layout", "nvidia"), "--layout has no effect without --root"),
        ((*TRAINING, "--scorer-range", "unit"), "--scorer-range has no effect except with a --scorer of your own"),
        ((*TRAINING, "--n-labels", "4"), "--n-labels has no effect with a run"),
    ],
)
def test_options_that_have_no_effect_with_a_run_are_refused(
    run: Path, tmp_path: Path, capsys: Capture, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    assert message in refused(capsys, run, *options, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    "option",
    ["--phase=test", "--max-images=2", "--pictures=3", "--checkpoint=best", "--no-ema", "--scorer-range=unit"],
)
def test_options_that_need_a_run_are_refused_without(
    dataset: Path, tmp_path: Path, capsys: Capture, option: str
) -> None:
    out = tmp_path / "out"
    line = refused(capsys, *TRAINING, "--root", dataset, "--n-labels", "4", option, "--out", out)
    assert f"{option.partition('=')[0]} has no effect " in line
    assert not out.exists()


def test_another_dataset_may_lie_in_another_way(other: Path, run: Path, dataset: Path, tmp_path: Path) -> None:
    config = load_config(run)
    lay = replace(config.data, root=tmp_path / "gone", layout="cityscapes", val_phase="berlin")
    model, _ = load_model(other)
    save_model(other, model, extra={"train": to_plain(replace(config, data=lay)), "stage": "joint"})
    assert evaluate(other, "--root", dataset, "--out", tmp_path / "out") == 0
    assert {row["phase"] for row in rows(tmp_path / "out" / "scores.csv")} == {"test"}


def test_a_layout_can_be_named(other: Path, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "two"))
    (root / "gtFine" / "test").mkdir(parents=True)
    assert "fits the layouts cityscapes and nvidia; set --" in refused(capsys, other, "--root", root)
    assert evaluate(other, "--root", root, "--layout", "nvidia", "--out", tmp_path / "out") == 0


def test_photos_of_another_kind_are_scored(stored_run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert evaluate(stored_run, "--out", tmp_path) == 0
    _, row = rows(tmp_path / "scores.csv")
    assert float(row["psnr"]) > 0
    said = capsys.readouterr().out
    config = load(stored_run, device="cpu").config
    channels = config.image_channels
    assert (f"its network takes RGB or grey images, but these have {channels} channels" in said) == (channels != 1)
    page = (tmp_path / "evaluation.html").read_text()
    assert ("channel 1 of 2" if channels == 2 else f"{channels} channel") in page
    assert {"uint16": "16 bits", "float32": "float32"}[config.image_depth] in page


def test_a_scorer_needs_rgb_or_grey(stored_run: Path, tmp_path: Path, capsys: Capture) -> None:
    channels = load(stored_run, device="cpu").config.image_channels
    if channels == 1:
        assert evaluate(stored_run, *TRAINING, "--out", tmp_path) == 0
        assert float(rows(tmp_path / "scores.csv")[1]["miou"]) >= 0
    else:
        assert f"RGB or grey images, but the photos have {channels} channels" in refused(
            capsys, stored_run, *TRAINING, "--out", tmp_path
        )


def test_runs_of_different_channels_are_not_compared(
    stored_run: Path, other: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = refused(capsys, stored_run, other, "--out", tmp_path)
    assert "other.safetensors generates images with image_channels 3, but photos have" in line


def test_names_of_runs_are_folded_rather_than_cut(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("no-instances-0", "no-instances-1")
    print_table([RunScores(name, dict.fromkeys(METRICS, 0.5)) for name in (ORACLE, *names)])
    printed = capsys.readouterr().out
    first = "".join(line.split(" ")[0] for line in printed.splitlines())
    assert all(name in first for name in names)
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
