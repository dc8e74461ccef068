"""Whole calls at a tiny scale: stopped, gone on with, repeated, failing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan.checkpoints import list_steps
from hdgan.cli import main
from hdgan.config_io import to_plain
from hdgan.data.scenes import CLASSES
from hdgan.errors import CheckpointError, ConfigError, TrainingError
from hdgan.models.segmenter import Segmenter, SegmenterConfig, save_segmenter
from hdgan.reproduce import job
from hdgan.reproduce.folder import NETWORKS, Folder
from hdgan.reproduce.plan import Scale
from hdgan.reproduce.results import REAL, read_csv
from hdgan.reproduce.run import Outcome, reproduce
from hdgan.training import load_config

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scenes in a cache of the tests, and this checkout in the processes."""
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return


@pytest.fixture
def out(tmp_path: Path, scale: Scale) -> Path:
    """A folder whose networks are there, untrained."""
    folder = Folder(tmp_path / "out")
    folder.claim(scale)
    for name, seed in NETWORKS.items():
        torch.manual_seed(seed)
        save_segmenter(folder.network(name), Segmenter(SegmenterConfig(len(CLASSES), width=2)))
    return folder.root


def run(scale: Scale, out: Path, *rows: str, seeds: int = 1, console: Console = QUIET) -> Outcome:
    return reproduce(scale, out, seeds=seeds, jobs=2, device="cpu", rows=rows, console=console)


def contents(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_ctrl_c_saves_the_same_call_goes_on_and_a_third_does_nothing(scale: Scale, out: Path) -> None:
    longer, folder = replace(scale, joint=400), Folder(out)
    folder.scale_file.unlink()
    code = f"""
import json
from pathlib import Path
from hdgan.config_io import from_plain
from hdgan.reproduce.plan import Scale
from hdgan.reproduce.run import reproduce

scale = from_plain(Scale, json.loads({json.dumps(to_plain(longer))!r}), "scale")
outcome = reproduce(scale, Path({str(out)!r}), seeds=1, jobs=2, device="cpu", rows=["crn"])
print("finished", outcome.finished, outcome.page)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (folder.run("crn", 0) / "metrics.jsonl").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert "crn, seed 0: saved (0 of 1 runs)" in printed
    assert "finished False None" in printed
    stopped = list_steps(folder.run("crn", 0))[-1]
    assert 0 < stopped < longer.steps

    outcome = run(longer, out, "crn", seeds=2)
    assert (outcome.done, outcome.total, outcome.page) == (2, 2, out / "evidence.md")
    assert f"resuming {folder.run('crn', 0)} after step {stopped}" in folder.log("crn-0").read_text()
    rows = read_csv(folder.results)
    assert [(row.row, row.seed) for row in rows] == [(REAL, None), ("crn", 0), ("crn", 1)]
    assert all(row.steps == longer.steps and row.held_out == 2 and row.jobs == 2 for row in rows)
    assert all(row.metrics["miou"] is not None and row.seconds > 0 for row in rows)
    assert read_csv(out / "evidence" / "tiny.csv") == rows
    assert (out / "evidence" / "tiny.png").is_file()
    assert "| CRN | 2 |" in (out / "evidence.md").read_text()

    before = contents(out / "runs")
    page = (out / "evidence.md").read_bytes()
    assert run(longer, out, "crn", seeds=2).finished
    assert contents(out / "runs") == before
    assert (out / "evidence.md").read_bytes() == page


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_are_finished(scale: Scale, out: Path) -> None:
    with pytest.raises(TrainingError) as raised:
        run(scale, out, "pix2pix", "crn")
    assert str(raised.value).startswith("pix2pix, seed 0: pictures of 32x16 are too small for D")
    assert str(Folder(out).log("pix2pix-0")) in str(raised.value)
    assert [row.row for row in read_csv(out / "evidence" / "tiny.csv")] == [REAL, "crn"]


@pytest.mark.parametrize("row", ["pix2pixhd", "features", "g1"])
def test_every_kind_of_row_is_trained_and_scored(scale: Scale, out: Path, row: str) -> None:
    folder = Folder(out)
    assert job.do(folder, row, 1, "cpu", 1, 2)
    config = load_config(folder.run(row, 1))
    assert (config.seed, config.threads, config.device) == (1, 1, "cpu")
    assert len(list(folder.scenes(row, 1).glob("*.png"))) == 2
    assert folder.seeds(row) == [1]


def test_a_run_of_other_options_is_not_gone_on_with(scale: Scale, out: Path) -> None:
    folder = Folder(out)
    assert job.do(folder, "crn", 0, "cpu", 1, 2)
    folder.result("crn", 0).unlink()
    folder.scale_file.unlink()
    folder.claim(replace(scale, lr=1e-3))
    with pytest.raises(ConfigError, match=r"crn-0 was begun by another version of hdgan.*delete that folder"):
        job.do(folder, "crn", 0, "cpu", 1, 2)


def test_networks_are_trained_once(scale: Scale, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.claim(scale)
    for name in NETWORKS:
        assert job.do(folder, name, 0, "cpu", 1, 1)
    scorer, perceptual = (folder.network(name).read_bytes() for name in NETWORKS)
    assert scorer != perceptual
    assert job.do(folder, "scorer", 0, "cpu", 1, 1)
    assert folder.network("scorer").read_bytes() == scorer


def test_a_folder_belongs_to_one_scale(scale: Scale, out: Path) -> None:
    with pytest.raises(ConfigError, match="holds runs of size tiny, not of size other: name another --out"):
        Folder(out).claim(replace(scale, name="other"))
    with pytest.raises(ConfigError, match="holds runs of another version of it"):
        Folder(out).claim(replace(scale, lr=1.0))
    Folder(out).scale_file.write_text("{")
    with pytest.raises(CheckpointError, match=r"scale\.json cannot be read"):
        Folder(out).claim(scale)


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
def test_numbers_below_one_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", option, "0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"hdgan: error: {option} is 0: give a positive number\n"
    assert not (tmp_path / "out").exists()
