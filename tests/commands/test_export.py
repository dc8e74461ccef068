"""`hdgan export` as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hdgan
from hdgan.commands.main import main
from hdgan.export.formats import FORMATS

Capture = pytest.CaptureFixture[str]


def test_a_run_becomes_a_program(run: Path, label: Path, ids: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "x.onnx"
    assert main(["export", str(run), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "takes label: int32 [batch, height, width], class of each pixel, 0 to 3" in said
    assert "makes picture: uint8 [batch, height, width, 3]" in said
    assert "checked on 2 maps of 27x37: " in said
    assert f"wrote {out}" in said.replace("\n", "")
    assert [path.name for path in out.parent.iterdir()] == ["x.onnx"]
    program, _ = FORMATS["onnx"].read(out)
    maps = {"label": label, "instance": ids}
    found = program({name: torch.from_numpy(np.array(Image.open(file)))[None].int() for name, file in maps.items()})
    expected = hdgan.load(run, device="cpu")(label, ids).permute(1, 2, 0) * 255
    torch.testing.assert_close(found[0].float(), expected, rtol=0, atol=0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.png"], "--out x.png must end in .onnx for --format onnx"),
        (["--out", "x.onnx", "--precision", "bfloat16"], "give float16, or another --format"),
        (
            ["--out", "x.onnx", "--input-depth", "uint16"],
            "the model takes label maps, not images: leave --input-depth out",
        ),
        (["--out", "x.onnx", "--part", "encoder", "--styles", "input"], "--styles has no effect with --part encoder"),
        (["--out", "x.onnx", "--variant", "1"], "variant is 1: the model generates 1 images"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Path, options: list[str], message: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
