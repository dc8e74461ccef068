"""The snippets of docs/integration.md that run programs by ONNX Runtime and by PyTorch, as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hdgan
from hdgan.commands.main import main

PAGE = Path(__file__).parents[2] / "docs" / "integration.md"


def of_the_section(pattern: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split("## In any runtime")[1].split("\n## ")[0]
    return re.findall(pattern, section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def maps(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps that the snippets read, in the working directory; `demo` is a small model."""
    monkeypatch.chdir(tmp_path)
    ids = np.repeat(np.repeat(np.array([[1000, 1001, 2000], [0, 3000, 3000]], np.uint16), 11, 0), 9, 1)
    Image.fromarray((ids // 1000).astype(np.uint8)).save("label.png")
    Image.fromarray(ids).save("instances.png")


def pixels(file: str) -> torch.Tensor:
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture)).float()


@pytest.mark.usefixtures("maps")
def test_the_snippet_of_onnx_runtime() -> None:
    command, *_ = of_the_section(r"^hdgan (export [^#\n]*)")
    snippet, *_ = of_the_section(r"```python\n(.*?)```")
    assert main(command.split()) == 0
    names: dict[str, object] = {}
    exec(snippet, names)
    expected = hdgan.load("demo", device="cpu")("label.png", "instances.png").permute(1, 2, 0) * 255
    torch.testing.assert_close(pixels("picture.png"), expected, rtol=0, atol=0.6)
    assert isinstance(names["classes"], str)
    assert all(entry["name"] and entry["color"] for entry in json.loads(names["classes"]))


@pytest.mark.usefixtures("maps")
def test_the_snippet_of_torch_export() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (22, 27, 3), np.uint8)
    Image.fromarray(photo).save("photo.png")
    _, *commands = of_the_section(r"^hdgan (export [^#\n]*)")
    _, snippet = of_the_section(r"```python\n(.*?)```")
    for command in commands:
        assert main(command.split()) == 0
    names: dict[str, object] = {}
    exec(snippet, names)
    model = hdgan.load("demo", device="cpu")
    expected = model("label.png", "instances.png", photo="photo.png").permute(1, 2, 0) * 255
    torch.testing.assert_close(pixels("styled.png"), expected, rtol=0, atol=0.6)
    without = model("label.png", "instances.png").permute(1, 2, 0) * 255
    assert (expected - without).abs().max() > 1  # or else the features would prove nothing
