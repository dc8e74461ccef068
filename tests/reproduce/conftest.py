"""A scale so small that a run takes a second, and made results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from hdgan.commands.main import main
from hdgan.errors import TrainingError
from hdgan.reproduce.jobs import Folder
from hdgan.reproduce.plan import NETWORKS
from hdgan.reproduce.record import Machine, Record
from hdgan.reproduce.results import REAL, Requested, Result, save_requested, write_rows
from hdgan.reproduce.scales import SCALES, Scale
from hdgan.training.interrupt import StopRequest
from tests.models.test_programs import Levels, write_script
from tests.reproduce.calls import network

ROOT = Path(__file__).parents[2]
MadeResults = Callable[[Mapping[str, list[float]]], list[Result]]


@pytest.fixture(scope="session")
def scale() -> Scale:
    """Three stages of an image each, at 32x16."""
    counts = {"train": 3, "test": 2, "coarse": 1, "enhancer": 1, "joint": 1, "decay": 1, "network_steps": 2}
    return replace(SCALES["small"], name="tiny", width=32, height=16, **counts, ngf=4, ndf=4, n_blocks=1, crn=1 / 256)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The file of a program with two features."""
    torch.manual_seed(0)
    return write_script(tmp_path / "features.pt", Levels())


@pytest.fixture(scope="session")
def result() -> Result:
    """One run's."""
    return Result(
        scale="tiny",
        row="pix2pixhd",
        seed=0,
        width=32,
        height=16,
        train_scenes=3,
        held_out=2,
        images=3,
        steps=3,
        parameters=1_234_567,
        began="2026-01-02T03:00:00+00:00",
        ended="2026-01-02T03:10:00+00:00",
        seconds=600.0,
        cpu_seconds=450.5,
        device="CPU",
        cores=2,
        threads=1,
        jobs=2,
        torch="2.13.0",
        hdgan=version("hdgan"),
        config="c0ffee",
        perceptual="beef",
        scorer="5c03e5",
        scorer_features=62,
        notes="lpips: no weights",
        metrics={"miou": 0.5, "psnr": 20.25, "lpips": None, "iou_car": 0.25},
    )


@pytest.fixture(scope="session")
def made(result: Result) -> MadeResults:
    """Results of rows by their mean IoU for seeds 0, 1, …; real photos have 0.9."""

    def make(scores: Mapping[str, list[float]]) -> list[Result]:
        real = replace(result, row=REAL, seed=None, notes="", metrics={"miou": 0.9, "psnr": None, "iou_car": 0.8})
        runs = [
            replace(result, row=row, seed=seed, metrics=result.metrics | {"miou": value})
            for row, values in scores.items()
            for seed, value in enumerate(values)
        ]
        return [real, *runs]

    return make


@pytest.fixture(scope="session")
def requested() -> Requested:
    """Two seeds of two methods, after networks of which one kept its time."""
    machine = Machine("CPU", cores=2, threads=1, jobs=2)
    scorer = Record("2026-01-02T02:50:00+00:00", "2026-01-02T02:55:00+00:00", 300.0, 299.0, machine)
    return Requested(("pix2pix", "pix2pixhd"), 2, {"scorer": scorer, "perceptual": None})


@pytest.fixture
def docs(tmp_path: Path, made: MadeResults, requested: Requested) -> Path:
    """A folder with the raw rows of two methods."""
    file = tmp_path / "evidence" / "tiny.csv"
    write_rows(file, made({"pix2pix": [0.3, 0.4], "pix2pixhd": [0.5, 0.6]}))
    save_requested(file, requested)
    return tmp_path


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scenes in a cache of the tests, and this checkout in the processes."""
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return


@pytest.fixture
def folder(tmp_path: Path, scale: Scale) -> Folder:
    """A folder whose networks are there, untrained."""
    folder = Folder(tmp_path / "out", scale)
    folder.claim()
    for name, seed in NETWORKS.items():
        network(folder, name, seed)
    return folder


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in the process of the tests, one at a time, which need not start PyTorch each time."""
    one = threading.Lock()

    def run_inline(
        command: Sequence[str], log: Path, threads: int, stop: StopRequest, cpu_seconds: list[float]
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with one, log.open("a") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = main(command)
        cpu_seconds.append(0.5)
        if status:
            raise TrainingError(log.read_text().splitlines()[-1])

    monkeypatch.setattr("hdgan.reproduce.run.call", run_inline)
    monkeypatch.setattr("hdgan.reproduce.run.LOOK_SECONDS", 0.02)
