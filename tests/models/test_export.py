"""The README's export of a generator, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = [text for text in snippets if "torch.export.save(" in text]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet.replace('"runs/demo"', repr(str(run))), names)
    generator, x, picture = names["generator"], names["x"], names["picture"]
    assert isinstance(generator, torch.nn.Module)
    assert isinstance(x, torch.Tensor)
    torch.testing.assert_close(picture, generator(x), rtol=1e-4, atol=1e-5)

    program = torch.export.load(tmp_path / "generator.pt2")
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators
    assert not any("hdgan" in operator for operator in operators)
    stride = generator.multiple
    for height, width in ((2, 9), (8, 3)):
        other = torch.rand(1, x.shape[1], height * stride, width * stride)
        torch.testing.assert_close(program.module()(other), generator(other), rtol=1e-4, atol=1e-5)
