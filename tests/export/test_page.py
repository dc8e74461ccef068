"""The snippet of docs/integration.md that runs a program by ONNX Runtime, as it stands there."""

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


def test_the_pages_snippet(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text(encoding="utf-8").split("## In any runtime")[1].split("\n## ")[0]
    (command,) = re.findall(r"^hdgan (export .*?) +#", section, re.MULTILINE)
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    ids = np.repeat(np.repeat(np.array([[1000, 1001, 2000], [0, 3000, 3000]], np.uint16), 11, 0), 9, 1)
    Image.fromarray((ids // 1000).astype(np.uint8)).save("label.png")
    Image.fromarray(ids).save("instances.png")
    assert main(command.split()) == 0
    names: dict[str, object] = {}
    exec(snippet, names)
    with Image.open("picture.png") as picture:
        found = torch.from_numpy(np.array(picture))
    expected = hdgan.load("demo", device="cpu")("label.png", "instances.png").permute(1, 2, 0) * 255
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.6)
    assert isinstance(names["classes"], str)
    assert all(entry["name"] and entry["color"] for entry in json.loads(names["classes"]))
