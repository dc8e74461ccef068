"""Models of the hub: names, what is downloaded, the cache, and each reason why there is no model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import hdgan
from hdgan.checkpoints import MODEL_FILE, STYLES_FILE, find_checkpoint, locate, output_beside, unchanging_name
from hdgan.commands.main import main
from hdgan.editor.context import output_folder
from hdgan.errors import CheckpointError, ConfigError
from hdgan.hub.names import HubModel, cached_name, hub_name, parse_hub_name
from hdgan.training import TrainConfig, train
from hdgan.training.run_folder import load_config
from tests.hub.stand_in import Files, HubState

Capture = pytest.CaptureFixture[str]
MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def files(styled: Path) -> Files:
    """What a repository of a model with styles holds."""
    folder = find_checkpoint(styled).parent
    return {name: (folder / name).read_bytes() for name in (MODEL_FILE, STYLES_FILE)} | {"README.md": b"words"}


def in_cache(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("hf:jane/streets", HubModel("jane/streets")),
        ("hf:jane/streets@v1.0", HubModel("jane/streets", "v1.0")),
        ("hf:j-d_e/s.2-x@refs/pr/1", HubModel("j-d_e/s.2-x", "refs/pr/1")),
    ],
)
def test_names_survive_as_paths(text: str, model: HubModel) -> None:
    assert hub_name(Path(text)) == text
    assert parse_hub_name(text) == model
    assert str(model) == text


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:a", "hf:a/b/c", "hf:/a/b", "hf:a/b@", "hf:a/b@../c", "hf:a--b/c", "hf:-a/b", "hf:a/b c", "hf:a/b.git"],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^\S.* does not name a model on the Hugging Face Hub: write hf:OWNER/"):
        locate(Path(text))


def test_a_model_is_loaded_by_its_name(hub: HubState, files: Files, styled: Path, label: Path, ids: Path) -> None:
    sha = hub.add("jane/streets", files).branches["main"]
    loaded, expected = hdgan.load("hf:jane/streets", device="cpu"), hdgan.load(styled, device="cpu")
    assert torch.equal(loaded(label, ids), expected(label, ids))
    assert loaded.bank.clusters.keys() == expected.bank.clusters.keys()
    assert loaded.file is not None
    assert in_cache(loaded.file.parent) == {MODEL_FILE, STYLES_FILE}
    assert cached_name(loaded.file) == HubModel("jane/streets", sha)


def test_the_commit_is_shown_and_can_be_kept_to(hub: HubState, files: Files, capsys: Capture) -> None:
    model = hub.add("jane/streets", files)
    first = model.branches["main"]
    folder = locate(Path("hf:jane/streets"))
    assert capsys.readouterr().err.endswith(f"hf:jane/streets: commit {first}; hf:jane/streets@{first} keeps to it\n")
    second = model.commit("main", {MODEL_FILE: files[MODEL_FILE]})
    assert locate(Path("hf:jane/streets")).name == second
    assert in_cache(locate(Path("hf:jane/streets"))) == {MODEL_FILE}
    capsys.readouterr()
    assert locate(Path(f"hf:jane/streets@{first}")) == folder
    assert capsys.readouterr().err == f"hf:jane/streets@{first}: commit {first}\n"


def test_nothing_is_downloaded_twice(hub: HubState, files: Files) -> None:
    hub.add("jane/streets", files)
    locate(Path("hf:jane/streets"))
    hub.requests.clear()
    locate(Path("hf:jane/streets"))
    assert [path for method, path in hub.requests if method == "GET"] == ["/api/models/jane/streets"]


@pytest.mark.parametrize("pinned", [False, True])
def test_without_a_connection_the_cache_is_used(
    hub: HubState, files: Files, pinned: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add("jane/streets", files).branches["main"]
    folder = locate(Path("hf:jane/streets"))
    name = f"hf:jane/streets@{sha}" if pinned else "hf:jane/streets"
    capsys.readouterr()
    hub.failing = "."
    assert locate(Path(name)) == folder
    assert f"{name} is taken from the cache, since {hub.url} is out of order" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate(Path(name)) == folder
    said = capsys.readouterr().err
    assert said == f"{name} is taken from the cache, since HF_HUB_OFFLINE is set: commit {sha}\n"
    with pytest.raises(CheckpointError, match=r"hf:jane/other is not in the cache, and HF_HUB_OFFLINE is set: repeat"):
        locate(Path("hf:jane/other"))


def test_a_hub_that_is_not_there(hub: HubState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"not in the cache, and http://127\.0\.0\.1:9 cannot be reached \("):
        locate(Path("hf:jane/streets"))


def test_an_interrupted_download_leaves_no_model(hub: HubState, files: Files) -> None:
    hub.add("jane/streets", files)
    hub.failing = f"GET /jane/streets/resolve/[^/]*/{MODEL_FILE}"
    with pytest.raises(CheckpointError, match=r"hf:jane/streets is not in the cache, and .* is out of order"):
        locate(Path("hf:jane/streets"))
    hub.failing = None
    assert in_cache(locate(Path("hf:jane/streets"))) == {MODEL_FILE, STYLES_FILE}


def test_who_may_not_read_is_told_so(hub: HubState, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("jane/hidden", files, private=True)
    hub.add("jane/secret", files, private=True)
    hub.add("jane/gated", files, gated=True)
    assert locate(Path("hf:jane/hidden")).is_dir()
    with pytest.raises(CheckpointError, match=r"there is no model \S+/jane/none, or it is private: check .* a token"):
        locate(Path("hf:jane/none"))
    monkeypatch.delenv("HF_TOKEN")
    for name in ("jane/none", "jane/secret"):
        with pytest.raises(CheckpointError, match=r"or it is private: check .*, or log in with `hf auth login`, or"):
            locate(Path(f"hf:{name}"))
    with pytest.raises(CheckpointError, match=r"^hf:jane/gated is gated: ask for access on \S+/jane/gated, then log"):
        locate(Path("hf:jane/gated"))


def test_what_is_no_model_of_hdgan(hub: HubState, files: Files) -> None:
    hub.add("jane/streets", files)
    hub.add("jane/words", {"config.json": b"{}", "pytorch_model.bin": b"", ".gitattributes": b""})
    foreign = b'\x02\0\0\0\0\0\0\0{}' + bytes(300_000)  # fmt: skip
    hub.add("jane/foreign", {MODEL_FILE: foreign})
    hub.add("jane/damaged", {MODEL_FILE: b"\xff" * 90})
    with pytest.raises(CheckpointError, match=r"jane/words is not a model of hdgan, since .*pytorch_model\.bin$"):
        locate(Path("hf:jane/words"))
    for name in ("jane/foreign", "jane/damaged"):
        with pytest.raises(CheckpointError, match=rf"hf:{name} is not a model of hdgan: its model\.safetensors was"):
            locate(Path(f"hf:{name}"))
    with pytest.raises(CheckpointError, match=r"/jane/streets has no revision v9: give a branch, a tag or a commit"):
        locate(Path("hf:jane/streets@v9"))


def test_a_folder_of_this_name_takes_precedence(hub: HubState, files: Files) -> None:
    folder = Path("hf:jane/streets")
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="or rename the folder to use the model hf:jane/streets of the hub"):
        find_checkpoint(folder)
    (folder / MODEL_FILE).write_bytes(files[MODEL_FILE])
    assert find_checkpoint(folder) == folder / MODEL_FILE
    assert hub.requests == []


def test_commands_write_elsewhere(hub: HubState, files: Files, dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    hub.add("jane/streets", files)
    model = find_checkpoint(Path("hf:jane/streets"))
    before = sorted((tmp_path / "hf").rglob("*"))
    assert output_beside(model, "edits") == output_folder(model) == Path("jane--streets.edits")
    assert unchanging_name(model) == f"hf:jane/streets@{model.parent.name}"
    assert main(["styles", "show", "hf:jane/streets", "--root", str(dataset)]) == 0
    assert main(["styles", "encode", "hf:jane/streets", "--root", str(dataset), "--device", "cpu"]) == 0
    assert {path.name for path in Path().iterdir()} == {"jane--streets.styles.html", "jane--streets.features.npz"}
    capsys.readouterr()
    assert main(["styles", "cluster", "hf:jane/streets", "--root", str(dataset)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the model hf:jane/streets@{model.parent.name} is in the cache of the hub, and its clusters" in line
    assert line.endswith(f"{model.parent.name} --out jane--streets.safetensors` and use that")
    assert main(["convert", "hf:jane/streets", "--out", "copy.safetensors"]) == 0
    assert sorted((tmp_path / "hf").rglob("*")) == before


def test_an_evaluation_calls_it_by_its_name(hub: HubState, files: Files, run: Path, dataset: Path) -> None:
    hub.add("jane/streets", files)
    options = ("--root", str(dataset), "--out", "out", "--pictures", "1", "--device", "cpu")
    assert main(["evaluate", "hf:jane/streets", str(run), *options]) == 0
    names = [line.split(",")[0] for line in Path("out/scores.csv").read_text().splitlines()]
    assert names[1:] == ["real photos", "streets", run.name]


def test_a_training_starts_from_its_weights(
    hub: HubState, files: Files, make_config: MakeConfig, tmp_path: Path, capsys: Capture
) -> None:
    hub.add("jane/streets", files)
    config = make_config(tmp_path / "run", images=2)
    config = replace(config, stages={"joint": config.stages["joint"]}, init_from=Path("hf:jane/streets"))
    assert train(config, console=Console(quiet=True)).finished
    assert "hf:jane/streets: commit " in capsys.readouterr().err
    assert load_config(config.out).init_from == Path("hf:jane/streets")


def damaged(folder: Path, name: str) -> None:
    """Cut what was downloaded in half, as a full disk would."""
    file = (folder / name).resolve()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "MODEL", "--label", "LABEL", "--out", "out"],
        ["export", "MODEL", "--out", "out.onnx"],
        ["evaluate", "MODEL", "--root", "ROOT", "--out", "out"],
        ["styles", "encode", "MODEL"],
        ["convert", "MODEL", "--out", "out.safetensors"],
        ["edit", "MODEL", "--root", "ROOT"],
        ["push", "MODEL", "jane/other", "--out", "out"],
        ["train", "demo", "--data.root", "ROOT", "--init-from", "MODEL", "--loss.vgg", "0", "--out", "run"],
    ],
    ids=lambda command: command[0],
)
def test_a_damaged_model_is_called_as_the_user_did(
    hub: HubState, files: Files, command: list[str], label: Path, dataset: Path, capsys: Capture
) -> None:
    name = "hf:jane/streets@main"
    hub.add("jane/streets", files)
    folder = locate(Path(name))
    damaged(folder, MODEL_FILE)
    words = {"MODEL": name, "LABEL": str(label), "ROOT": str(dataset)}
    assert main([words.get(word, word) for word in command]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"hdgan: error: {name} (model.safetensors) (")
    assert str(folder) not in line
    remedy = re.search(r"; delete (\S+) to have it downloaded again, or give another revision, hf:OWNER/NAME@REV", line)
    assert remedy is not None
    shutil.rmtree(remedy[1])
    assert hdgan.load(name, device="cpu").config.n_labels


def test_damaged_styles_are_called_as_the_user_did(hub: HubState, files: Files) -> None:
    hub.add("jane/streets", files)
    damaged(locate(Path("hf:jane/streets")), STYLES_FILE)
    pipeline = hdgan.load("hf:jane/streets", device="cpu")
    with pytest.raises(CheckpointError, match=r"^hf:jane/streets \(styles\.safetensors\) \(\d+ bytes\) is not .*; del"):
        _ = pipeline.bank


def test_without_styles_the_remedy_is_a_copy(hub: HubState, files: Files) -> None:
    hub.add("jane/streets", {MODEL_FILE: files[MODEL_FILE]})
    pipeline = hdgan.load("hf:jane/streets", device="cpu")
    with pytest.raises(
        CheckpointError,
        match=r"^the model hf:jane/streets@\w{40} has no clusters of styles: to create some, make a copy of it with "
        r"`hdgan convert hf:jane/streets@\w{40} --out jane--streets\.safetensors` and use that$",
    ):
        _ = pipeline.bank


def test_an_unsuitable_model_is_called_as_the_user_did(
    hub: HubState, files: Files, dataset: Path, capsys: Capture
) -> None:
    hub.add("jane/streets", files)
    options = ("--data.root", str(dataset), "--out", "run", "--device", "cpu")
    assert main(["train", "pix2pix", *options, "--n-labels", "4", "--init-from", "hf:jane/streets"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hdgan: error: --init-from hf:jane/streets (model.safetensors) is a model of the family pix2pixhd, but this "
        "run is of pix2pix"
    )


def test_a_cache_has_this_form(tmp_path: Path) -> None:
    assert cached_name(Path("models--a--b/snapshots/c0ffee/model.safetensors")) == HubModel("a/b", "c0ffee")
    for other in ("model.safetensors", "/model.safetensors", "models--a--b/blobs/c0/x", "a--b/snapshots/c0/x"):
        assert cached_name(Path(other)) is None


def test_huggingface_hub_is_asked_for_only_when_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys, hdgan; hdgan.load; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})  # noqa: PTH109
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"need huggingface_hub: install it with `pip install -e \"\.\[hub\]\"` in"):
        locate(Path("hf:jane/streets"))


def test_pictures_with_the_real_variables(
    hub: HubState, files: Files, label: Path, ids: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    hub.add("jane/streets", files)
    arguments = ("generate", "hf:jane/streets", "--label", str(label), "--instance", str(ids), "--out")
    outputs = []
    for out, environment in (("one", {}), ("two", {"HF_HUB_OFFLINE": "1"})):
        process = start(*arguments, out, "--device", "cpu", **environment)
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0, outputs
    assert "hf:jane/streets: commit " in outputs[0]
    assert "hf:jane/streets is taken from the cache, since HF_HUB_OFFLINE is set: commit " in outputs[1]
    one, two = (Path(out) / "s0_label.png" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
