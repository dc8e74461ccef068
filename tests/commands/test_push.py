"""`hdgan push`: what is uploaded and what is not, the card, and that the result is the model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hdgan
from hdgan.checkpoints import MODEL_FILE, STYLES_FILE, best_step, find_checkpoint, list_steps
from hdgan.commands.main import main
from hdgan.families.saving import read_metadata
from hdgan.inference import Pipeline
from hdgan.styles.bank import StyleBank
from tests.hub.stand_in import TOKEN, HubState

Capture = pytest.CaptureFixture[str]
CONTENT = {MODEL_FILE, STYLES_FILE, "config.json", "README.md"}


def pushed(*arguments: object) -> int:
    return main(["push", *map(str, arguments), "--device", "cpu"])


def written(run: object, *arguments: object) -> Path:
    """The folder that a push would upload."""
    assert pushed(run, "jane/streets", "--out", "out", *arguments) == 0
    return Path("out")


def refused(capsys: Capture, *arguments: object) -> str:
    """The line in which a push is refused."""
    capsys.readouterr()
    assert pushed(*arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hdgan: error: ")
    return line


def header(card: str) -> dict[str, object]:
    """What the hub reads of a card."""
    found: dict[str, object] = yaml.safe_load(card.split("---")[1])
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_what_is_pushed_is_the_model(hub: HubState, styled: Path, label: Path, ids: Path, capsys: Capture) -> None:
    assert pushed(styled, "jane/streets", "--license", "apache-2.0") == 0
    out = capsys.readouterr().out
    model = hub.models["jane/streets"]
    assert model.files().keys() == {*CONTENT, ".gitattributes"}
    sha = model.branches["main"]
    assert out.startswith("uploading to hf:jane/streets, a new public repository:\n  README.md  ")
    assert out.endswith(f"{hub.url}/jane/streets\ncommit {sha}: hf:jane/streets@{sha}\n")
    found, expected = hdgan.load(f"hf:jane/streets@{sha}", device="cpu"), hdgan.load(styled, device="cpu")
    assert torch.equal(found(label, ids), expected(label, ids))
    for mine, theirs in zip(found.bank.clusters.values(), expected.bank.clusters.values(), strict=True):
        assert [cluster.centre.tolist() for cluster in mine] == [cluster.centre.tolist() for cluster in theirs]
    assert list(model.messages.values())[-1] == f"Push the model of step {list_steps(styled)[-1]}"


def test_a_second_push_is_a_second_commit(hub: HubState, styled: Path, capsys: Capture) -> None:
    assert pushed(styled, "jane/streets", "--private") == 0
    assert "a new private repository" in capsys.readouterr().out
    model = hub.models["jane/streets"]
    first, last = model.commits
    arguments = ("--no-ema", "--dtype", "bfloat16", "--message", "smaller")
    bare = find_checkpoint(styled)
    shutil.copytree(bare.parent, "bare")
    (Path("bare") / STYLES_FILE).unlink()
    assert pushed("bare", "jane/streets", *arguments) == 0
    assert "uploading to hf:jane/streets, a private repository:\n" in capsys.readouterr().out
    assert model.messages[model.branches["main"]] == "smaller"
    assert model.files().keys() == {*CONTENT, ".gitattributes"} - {STYLES_FILE}
    assert len(model.files()[MODEL_FILE]) < len(model.files(last)[MODEL_FILE])
    assert model.files(first).keys() == {".gitattributes"}


def test_a_token_is_never_shown(hub: HubState, styled: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pushed(styled, "jane/streets") == 0
    assert pushed(styled, "others/streets") == 2
    hub.failing = "/commit/"
    assert pushed(styled, "jane/streets", "--dtype", "bfloat16") == 2
    shown = capfd.readouterr()
    assert "status 403" in shown.err
    assert "status 500" in shown.err
    assert TOKEN not in shown.out + shown.err


@pytest.mark.usefixtures("here")
def test_nothing_of_the_training_images_goes_along(
    styled: Path, dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = written(styled)
    assert {path.name for path in folder.iterdir()} == CONTENT
    assert "the styles have no crops of photos; --crops adds them" in capsys.readouterr().out
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert str(tmp_path.parents[1]).encode() not in everything
    assert str(dataset).encode() not in everything
    assert re.search(rb"s\d_(img|label)", everything) is None
    clusters = [cluster for own in StyleBank.load(folder / STYLES_FILE).clusters.values() for cluster in own]
    assert clusters
    assert {(cluster.examples, cluster.thumbnail) for cluster in clusters} == {((), None)}


@pytest.mark.usefixtures("here")
def test_crops_go_along_if_asked_for(styled: Path, capsys: Capture) -> None:
    folder = written(styled, "--crops")
    assert "the styles have crops of training photos" in capsys.readouterr().out
    clusters = StyleBank.load(folder / STYLES_FILE).clusters
    assert all(cluster.thumbnail is not None and cluster.examples for own in clusters.values() for cluster in own)


@pytest.mark.usefixtures("here")
def test_crops_of_a_model_without_clusters_are_refused(run: Path, capsys: Capture) -> None:
    line = refused(capsys, run, "a/b", "--out", "out", "--crops")
    assert f"--crops has no effect, since {run} has no clusters of styles: leave it out" in line


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("uploads", [False, True])
def test_what_is_damaged_is_called_as_the_user_knows_it(
    hub: HubState, copied: Path, uploads: bool, capsys: Capture
) -> None:
    file = find_checkpoint(copied)
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["hdgan"])
    header["train"]["stages"][header["stage"]]["size"] = {"width": "wide"}
    save_file(load_file(file), file, {"hdgan": json.dumps(header)})
    line = refused(capsys, copied, "jane/streets", *([] if uploads else ["--out", "out"]))
    assert line.startswith(f"hdgan: error: {file}, train")
    assert "jane/streets" not in hub.models
    assert not Path("out").exists()


@pytest.mark.usefixtures("here")
def test_the_card_says_what_the_file_says(styled: Path) -> None:
    Path("names").write_text("ground\nsky\nred | box\nblue box\n")
    folder = written(styled, "--license", "cc-by-4.0", "--dataset", "jane/photos", "jane/more", "--classes", "names")
    card = (folder / "README.md").read_text()
    assert header(card) == {
        "library_name": "hdgan",
        "pipeline_tag": "image-to-image",
        "license": "cc-by-4.0",
        "datasets": ["jane/photos", "jane/more"],
        "tags": ["hdgan", "pix2pixhd", "gan", "image-synthesis"],
    }
    pipeline = Pipeline(hdgan.load(folder, device="cpu").model)
    n = sum(weight.numel() for weight in pipeline.model.generator.parameters())
    for line in (
        "# streets", "generates images from label maps of 4 classes and instance maps.",
        'model = hdgan.load("hf:jane/streets")', 'image = model("label.png", "instances.png")   # [3, H, W] in [0, 1]',
        f"| parameters of the generator | {n:,} |", "| steps | 9 |", "| size of the images | 32 pixels wide |",
        "| 2 | red \\| box | `#",
    ):  # fmt: skip
        assert line in card
    assert "street scenes" not in card
    classes = hdgan.load(folder, device="cpu").classes
    assert classes is not None
    assert classes.classes == ("ground", "sky", "red | box", "blue box")
    assert json.loads((folder / "config.json").read_text()) == read_metadata(folder / MODEL_FILE)


def test_a_card_of_ones_own_stays(hub: HubState, styled: Path, capsys: Capture) -> None:
    hub.add("jane/streets", {"README.md": b"my words"})
    assert pushed(styled, "jane/streets", "--no-card") == 0
    assert "licence" not in capsys.readouterr().out
    assert hub.models["jane/streets"].files()["README.md"] == b"my words"
    for option in (["--license", "mit"], ["--dataset", "a/b"]):
        line = refused(capsys, styled, "jane/streets", "--no-card", *option)
        assert f"{option[0]} has no effect with --no-card" in line


@pytest.mark.usefixtures("here")
def test_only_values_of_these_weights_are_shown(copied: Path) -> None:
    best = copied / "checkpoints" / "best.json"
    last = list_steps(copied)[-1]
    best.write_text(json.dumps({"step": last, "stage": "joint", "val_l1": 0.25, "val_miou": 0.5}))
    assert best_step(copied) == last
    card = (written(copied) / "README.md").read_text()
    assert "| validation L1 | 0.25 |\n| validation mean IoU | 0.5 |" in card
    shutil.rmtree("out")
    best.write_text(json.dumps({"step": last - 1, "stage": "joint", "val_l1": 0.25}))
    assert "validation" not in (written(copied) / "README.md").read_text()


def test_samples_of_built_in_scenes(shipped: Path, capsys: Capture) -> None:
    folder = written("demo", "--scenes", "2")
    assert "the samples show the inputs beside the images" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["1.png", "2.png"]
    assert Image.open(folder / "samples" / "1.png").size == (64, 16)
    card = (folder / "README.md").read_text()
    assert "![input and generated image](samples/2.png)" in card
    assert "trained on the street scenes that hdgan draws" in card
    assert "| 3 | building |" in card


@pytest.mark.usefixtures("here")
def test_samples_of_maps_that_are_given(styled: Path, dataset: Path, label: Path, ids: Path) -> None:
    folder = written(styled, "--label", dataset / "test_label", "--instance", dataset / "test_inst")
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["1.png", "2.png"]
    picture = Image.open(folder / "samples" / "1.png")
    made = hdgan.load(styled, device="cpu")(label, ids).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(np.asarray(picture.crop((32, 0, 64, 16))) / 255, made, atol=1 / 255)


@pytest.mark.usefixtures("here")
def test_what_cannot_be_pushed_is_told_in_one_line(styled: Path, label: Path, capsys: Capture) -> None:
    assert "x is no name of a repository" in refused(capsys, styled, "x", "--out", "out")
    assert "--license Mine! is no name" in refused(capsys, styled, "a/b", "--out", "out", "--license", "Mine!")
    assert "--dataset photos is no name" in refused(capsys, styled, "a/b", "--out", "out", "--dataset", "photos")
    for option in (["--private"], ["--branch", "b"], ["--message", "m"], ["--overwrite"]):
        line = refused(capsys, styled, "a/b", "--out", "out", *option)
        assert f"{option[0]} has no effect with --out, which uploads nothing" in line
    assert "was not trained on the built-in scenes" in refused(capsys, styled, "a/b", "--out", "out", "--scenes", "1")
    assert "trained with instance maps" in refused(capsys, styled, "a/b", "--out", "out", "--label", label)
    assert "nowhere does not exist" in refused(capsys, "nowhere", "a/b", "--out", "out")
    assert list(Path().iterdir()) == []
    Path("out").mkdir()
    assert "--out out already exists" in refused(capsys, styled, "a/b", "--out", "out")
