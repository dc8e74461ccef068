"""Runs on data elsewhere: the weights of a run on the folder, also after the server has gone and come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from safetensors.torch import load_file

from hdgan.checkpoints import MODEL_FILE, checkpoint_path, list_steps
from hdgan.data import pack_dataset
from hdgan.errors import DataError
from hdgan.training import TrainConfig, load_config, train
from hdgan.training.datasets import open_data

pytestmark = pytest.mark.usefixtures("plain_report")
QUIET = Console(quiet=True)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_path(run, list_steps(run)[-1]) / MODEL_FILE)


@pytest.mark.parametrize("packed", [False, True])
def test_a_run_goes_on_where_the_server_went_away(
    make_config: Callable[..., TrainConfig],
    in_memory: Callable[[Path], Path],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packed: bool,
) -> None:
    config = make_config(tmp_path / "run")
    root = config.data.root
    assert root is not None
    if packed:
        sizes = list(dict.fromkeys(stage.size for stage in config.stages.values()))
        pack_dataset(config.data, tmp_path / "packed", sizes, config.model.n_labels)
        root = tmp_path / "packed"
    config = replace(config, data=replace(config.data, root=in_memory(root)))
    read, left = MemoryFileSystem.cat_file, 10**6

    def cat_file(self: Any, *args: Any, **options: Any) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("connection reset")
        return read(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    open_data(config, QUIET)
    left = 10**6 - left + (8 if packed else 24)  # what the checks take, and the samples of four steps
    with pytest.raises(DataError, match=r"^memory://.* cannot be read \(connection reset, 3 tries\)"):
        train(config, console=QUIET)
    assert 0 < list_steps(config.out)[-1] < 9
    left = 10**6
    saved = load_config(config.out)
    assert saved.data.root == config.data.root
    assert train(saved, resume=True, console=QUIET).finished
    ours, theirs = weights(config.out), weights(run)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
