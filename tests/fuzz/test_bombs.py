"""Refusing a file costs little, whatever it claims: below 1 GB of memory and 10 seconds for up to 100 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOST_BYTES, MOST_SECONDS = 10**9, 10.0
ABSENT = ("folder as best/", "loop as best/")
"""A run without a best checkpoint has no such file, so what is no file counts as none."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is Linux' own")
def test_refusing_costs_little(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.bombs", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 90
    dear = [one for one in found if one["growth"] > MOST_BYTES or one["seconds"] > MOST_SECONDS]
    assert not dear
    wrong = [one for one in found if not one["outcome"].startswith("refused: ") and not one["name"].startswith(ABSENT)]
    assert not wrong
