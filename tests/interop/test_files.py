"""Files that a conversion writes: whole sets, never over another's."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from hdgan.errors import HdganError
from hdgan.interop.files import write_networks


def _write(folder: Path, value: float, ready: Any, results: Any) -> None:
    ready.wait()
    try:
        write_networks(folder, "latest", {name: {"a": torch.full((1000,), value)} for name in "GD"})
        results.put(value)
    except HdganError as error:
        results.put(str(error))


@pytest.mark.parametrize("there", [False, True])
def test_of_two_at_the_same_time_one_wins(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("kept")
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(2), context.Queue()
    writers = [context.Process(target=_write, args=(folder, value, ready, results)) for value in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    ends = [results.get(timeout=30) for _ in writers]
    for writer in writers:
        writer.join()
    (won,) = [end for end in ends if isinstance(end, float)]
    (lost,) = [end for end in ends if isinstance(end, str)]
    assert "already exists" in lost
    for name in ("latest_net_G.pth", "latest_net_D.pth"):
        assert torch.load(folder / name, weights_only=True)["a"][0] == won
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    assert (folder / "notes.txt").exists() == there
