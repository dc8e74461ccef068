"""`hdgan bench profile`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from hdgan.commands.main import main

ENCODE = ["bench", "profile", "encode_labels", "eager", "--only", "1024x512", "--device", "cpu"]


def test_kernels_are_listed_and_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.json.gz"
    assert main([*ENCODE, "--rounds", "1", "--out", str(trace)]) == 0
    listed = capsys.readouterr().out
    assert "encode_labels: 1024x512" in listed
    assert "aten::bitwise_or_" in listed
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert "aten::bitwise_or_" in names


def test_another_profiler_has_it_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ENCODE, "--rounds", "0"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rounds", "-1"], "--rounds is -1: give 1 or more"),
        (["--rounds", "0", "--out", "x.json.gz"], "--rounds is 0: give 1 or more for a trace"),
        (["--out", "x.json"], "--out x.json: give a file that ends in .json.gz"),
    ],
)
def test_wrong_options(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ENCODE, *options]) == 2
    assert says in capsys.readouterr().err
