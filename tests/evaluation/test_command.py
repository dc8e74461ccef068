"""`hdgan evaluate`, from a trained run to the page."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hdgan.cli import main
from hdgan.evaluation.page import Gallery
from hdgan.models import GeneratorConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.models.saving import save_model
from hdgan.models.segmenter import load_segmenter

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
    names = ["classes.csv", "evaluation.html", "scorer.safetensors", "scores.csv"]
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
        "lpips: its AlexNet needs pictures of 32 pixels each way; fid: needs torchvision"
    )
    classes = rows(out / "classes.csv")
    assert [(row["run"], row["class"]) for row in classes[:5]] == [
        *(("real photos", str(k)) for k in range(4)), ("finished", "0")
    ]  # fmt: skip
    assert sum(int(row["pixels"]) for row in classes[:4]) == 2 * 32 * 16

    # Without an option the scorer in the folder is used; it is not overwritten.
    before = (out / "scorer.safetensors").read_bytes()
    assert evaluate(run, other, "--out", out) == 0
    assert rows(out / "scores.csv") == scores
    assert "scorer.safetensors exists already" in refused_after(capsys, run, *TRAINING, "--out", out)
    assert (out / "scorer.safetensors").read_bytes() == before


def refused_after(capsys: Capture, *arguments: object) -> str:
    capsys.readouterr()
    return refused(capsys, *arguments)


def test_the_page_needs_no_other_file(run: Path, other: Path, scorer: Path, tmp_path: Path) -> None:
    assert evaluate(run, other, "--scorer", scorer, "--out", tmp_path, "--pictures", "1") == 0
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    # One example: label map, photo and two pictures; below what was recognised in the three.
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [
        "label map", "real photos", "finished", "other.safetensors",
        "real photos, recognised", "finished, recognised", "other.safetensors, recognised",
    ]  # fmt: skip
    assert page.count('class="best"') >= 2
    assert "{{" not in page
    assert not (tmp_path / "scorer.safetensors").exists()


def test_a_scorer_can_be_trained_without_a_run(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "s.safetensors"
    options = ("--root", dataset, "--n-labels", 4, "--width", 16)
    assert evaluate(*TRAINING, *options, "--scorer", file) == 0
    assert load_segmenter(file).config.n_labels == 4
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]
    assert "no run is named" in refused_after(capsys, *options)


def test_bad_input_ends_in_one_line(
    run: Path, scorer: Path, make_data: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    root = make_data("empty", test=0)
    (root / "test_label").mkdir()
    assert "test_label holds no pictures" in refused(capsys, run, "--root", root, "--out", tmp_path)
    (tmp_path / "none").mkdir()
    assert "none holds no checkpoint" in refused(capsys, tmp_path / "none", "--out", tmp_path)
    torch.manual_seed(0)
    nine = Pix2PixHDConfig(n_labels=9, generator=GeneratorConfig(ngf=4, n_downsample=1, n_blocks=1))
    save_model(tmp_path / "nine.safetensors", Pix2PixHD(nine))
    line = refused(capsys, tmp_path / "nine.safetensors", "--root", root, "--phase", "train", "--scorer", scorer)
    assert "scorer.safetensors knows 4 classes, but the label maps have 9" in line
    assert "width is 0; it must be at least 1 pixel" in refused(capsys, run, "--width", "0", "--out", tmp_path)
    assert "--pictures is -1: give 0 or more" in refused(capsys, run, "--pictures", "-1", "--out", tmp_path)


def test_all_runs_are_opened_before_a_scorer_is_trained(run: Path, tmp_path: Path, capsys: Capture) -> None:
    out, none = tmp_path / "out", tmp_path / "none.safetensors"
    assert "none.safetensors" in refused(capsys, run, none, *TRAINING, "--out", out)
    assert "--pictures is -1" in refused(capsys, run, *TRAINING, "--pictures", "-1", "--out", out)
    assert "val_label does not exist" in refused(capsys, run, *TRAINING, "--phase", "val", "--out", out)
    assert not out.exists()


def test_a_gallery_keeps_the_first_pictures() -> None:
    gallery = Gallery(("real photos",), limit=2)
    for k in range(3):
        sample = {"stem": f"s{k}", "label": torch.zeros(4, 400, dtype=torch.uint8)}
        gallery.add(sample, [torch.rand(1, 3, 4, 400)], [None])  # type: ignore[arg-type]
    assert [example.stem for example in gallery.examples] == ["s0", "s1"]
    label, photo = gallery.examples[0].pictures
    assert (label.is_map, label.source[:15]) == (True, "data:image/png;")
    assert (photo.is_map, photo.source[:16], photo.width) == (False, "data:image/jpeg;", 400)
    assert gallery.examples[0].recognised == []
