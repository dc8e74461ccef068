"""A scale so small that a run takes a second, and made results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.reproduce.plan import SCALES, Scale
from hdgan.reproduce.results import REAL, Result, write_csv

MadeResults = Callable[[Mapping[str, list[float]]], list[Result]]


@pytest.fixture(scope="session")
def scale() -> Scale:
    """Three stages of a picture each, at 32x16."""
    counts = {"train": 3, "test": 2, "coarse": 1, "enhancer": 1, "joint": 1, "decay": 1, "network_steps": 2}
    return replace(SCALES["small"], name="tiny", width=32, height=16, **counts, ngf=4, ndf=4, n_blocks=1, crn=1 / 256)


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
        seconds=61.5,
        parameters=1_234_567,
        device="CPU",
        cores=2,
        threads=1,
        jobs=2,
        torch="2.13.0",
        hdgan="0.1.0",
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


@pytest.fixture
def docs(tmp_path: Path, made: MadeResults) -> Path:
    """A folder with the raw rows of two methods."""
    write_csv(tmp_path / "evidence" / "tiny.csv", made({"pix2pix": [0.3, 0.4], "pix2pixhd": [0.5, 0.6]}))
    return tmp_path
