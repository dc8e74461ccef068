"""The models that come with hdgan: small, free of traces of where they were trained, and ready for use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import hdgan
from hdgan.checkpoints import MODEL_FILE, PRETRAINED, STYLES_FILE, pretrained_names
from hdgan.commands.main import main
from hdgan.families.saving import load_model

MOST_BYTES = 8_000_000
"""Of a model with its styles: everybody who installs hdgan downloads it."""

each_model = pytest.mark.parametrize("name", pretrained_names())


def test_the_model_of_the_readme_is_there() -> None:
    assert "demo" in pretrained_names()


@each_model
def test_a_model_is_small_and_whole(name: str) -> None:
    files = list((PRETRAINED / name).iterdir())
    assert {file.name for file in files} == {MODEL_FILE, STYLES_FILE}
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    model, info = load_model(PRETRAINED / name / MODEL_FILE)
    assert info.missing == ("discriminator",)
    stored = load_file(PRETRAINED / name / MODEL_FILE)
    assert {stored[key].dtype for key, _ in model.named_parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@each_model
def test_a_model_has_no_paths_of_where_it_was_trained(name: str) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for part in value.values() for text in texts(part)]
        return [value] if isinstance(value, str) else []

    with safe_open(PRETRAINED / name / MODEL_FILE, "pt") as file:
        found = texts(json.loads(file.metadata()["hdgan"]))
    assert found
    assert [text for text in found if Path(text).is_absolute()] == []


@each_model
def test_a_model_makes_pictures_in_styles_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = hdgan.load(name, device="cpu")
    assert pipeline.file == PRETRAINED / name / MODEL_FILE
    assert all(len(own) > 1 for own in pipeline.bank.clusters.values())
    assert main(["generate", name, "--scenes", "1", "--styles", "random", "--out", "out", "--device", "cpu"]) == 0
    assert Path("out/scene_000000.png").is_file()
