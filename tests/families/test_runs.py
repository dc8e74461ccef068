"""Whole runs of the families beside pix2pixHD, in every way in which that one is run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hdgan.checkpoints import find_checkpoint
from hdgan.families import Pix2PixConfig, UNetConfig
from hdgan.training import TrainConfig, train
from hdgan.training.dry_run import dry_run
from hdgan.training.logs import read_metrics

MakeConfig = Callable[..., TrainConfig]
QUIET = Console(quiet=True)

FAMILIES = ("pix2pix", "crn")
of_both_families = pytest.mark.parametrize("make_family_config", FAMILIES, indirect=True)


def with_noise(config: TrainConfig) -> TrainConfig:
    """As the presets have it, in the family that has noise."""
    if not isinstance(config.model, Pix2PixConfig):
        return config
    return replace(config, model=replace(config.model, norm="batch", generator=UNetConfig(ngf=4)))


def first_losses(config: TrainConfig) -> dict[str, float]:
    record = next(record for record in read_metrics(config.out) if "lr" in record)
    return {name: value for name, value in record.items() if name.startswith(("g_", "d_", "l1_"))}


@of_both_families
def test_bfloat16_and_channels_last(make_family_config: MakeConfig, tmp_path: Path) -> None:
    plain = with_noise(make_family_config(tmp_path / "plain", images=2))
    other = replace(plain, out=tmp_path / "other", precision="bfloat16", memory_format="channels_last")
    for config in (plain, other):
        assert train(config, console=QUIET).finished
    expected = first_losses(plain)
    assert len(expected) >= 4
    assert first_losses(other) == pytest.approx(expected, rel=0.1)
    assert all(weight.dtype != torch.bfloat16 for weight in load_file(find_checkpoint(other.out)).values())


@of_both_families
def test_dry_run(make_family_config: MakeConfig, tmp_path: Path) -> None:
    config = with_noise(make_family_config(tmp_path / "run"))
    [timing] = dry_run(config, QUIET)
    estimate = timing.estimate
    assert not config.out.exists()
    assert (estimate.steps, estimate.size) == (3, (32, 16))
    assert estimate.peak_bytes > estimate.saved_bytes + 4 * estimate.trained
    assert any(layer.layer.startswith("generator.") for layer in estimate.layers)


def train_as(rank: int, runs: list[tuple[int, TrainConfig]]) -> None:
    """One process of two in each of several runs, which meet at a port."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    for port, config in runs:
        os.environ["MASTER_PORT"] = str(port)
        train(config, console=QUIET)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(
    family_configs: dict[str, MakeConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the processes import this module
    alone = [family_configs[family](tmp_path / family, images=4) for family in FAMILIES]
    shared = [replace(config, out=tmp_path / f"{config.out.name} shared") for config in alone]
    for config in alone:
        train(config, console=QUIET)
    with socket.socket() as one, socket.socket() as other:
        ports = []
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    torch.multiprocessing.spawn(train_as, (list(zip(ports, shared, strict=True)),), nprocs=2)
    for one_process, two_processes in zip(alone, shared, strict=True):
        expected, found = (load_file(find_checkpoint(config.out)) for config in (one_process, two_processes))
        assert expected.keys() == found.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert first_losses(two_processes) == pytest.approx(first_losses(one_process), rel=1e-4)
