"""Whole calls at a tiny scale: stopped, gone on with, repeated, failing."""

from __future__ import annotations

import contextlib
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
from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.errors import CheckpointError, ConfigError, DataError, TrainingError
from hdgan.models.segmenter import Segmenter, SegmenterConfig, save_segmenter
from hdgan.reproduce import job
from hdgan.reproduce.folder import NETWORKS, PERCEPTUAL, SCORER, Folder
from hdgan.reproduce.plan import Scale
from hdgan.reproduce.record import load_record
from hdgan.reproduce.results import REAL, Result, load_results, read_results, save_results
from hdgan.reproduce.run import Outcome, publish, reproduce
from hdgan.reproduce.workers import Ended, Workers
from hdgan.scenes import SPEC
from hdgan.training import load_config

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scenes in a cache of the tests, and this checkout in the processes."""
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return


def network(folder: Folder, name: str, seed: int) -> None:
    """Write an untrained one."""
    torch.manual_seed(seed)
    save_segmenter(folder.network(name), Segmenter(SegmenterConfig(SPEC.n_labels, width=2)))


@pytest.fixture
def out(tmp_path: Path, scale: Scale) -> Path:
    """A folder whose networks are there, untrained."""
    folder = Folder(tmp_path / "out")
    folder.claim(scale)
    for name, seed in NETWORKS.items():
        network(folder, name, seed)
    return folder.root


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in the process of the tests, which need not start PyTorch each time."""

    class Inline(Workers):
        def poll(self) -> list[Ended]:
            one = self.waiting.popleft()
            one.log.parent.mkdir(parents=True, exist_ok=True)
            with one.log.open("w") as log, contextlib.redirect_stdout(log):
                return [Ended(one, job.main(one.arguments))]

    monkeypatch.setattr("hdgan.reproduce.run.Workers", Inline)
    monkeypatch.setattr("hdgan.reproduce.run.LOOK_SECONDS", 0)
    monkeypatch.setattr(job, "watch_parent", lambda: None)


def run(
    scale: Scale, out: Path, *rows: str, seeds: int = 1, docs: Path | None = None, console: Console = QUIET
) -> Outcome:
    return reproduce(scale, out, seeds=seeds, jobs=2, device="cpu", docs=docs, rows=rows, console=console)


def contents(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_call_goes_on(scale: Scale, out: Path, inline: None) -> None:
    longer, folder = replace(scale, joint=100), Folder(out)
    folder.scale_file.unlink()
    code = f"""
import json
from pathlib import Path
from hdgan.config.serialization import from_plain
from hdgan.reproduce.plan import Scale
from hdgan.reproduce import run

scale = from_plain(Scale, json.loads({json.dumps(to_plain(longer))!r}), "scale")
run.LOOK_SECONDS = 0.05
outcome = run.reproduce(scale, Path({str(out)!r}), seeds=1, jobs=2, device="cpu", rows=["crn"])
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
    first = load_record(folder.record("crn", 0))

    assert run(longer, out, "crn") == Outcome(1, 1, out / "evidence.md")
    assert f"resuming {folder.run('crn', 0)} after step {stopped}" in folder.log("crn-0").read_text()
    second = load_record(folder.record("crn", 0))
    assert first is not None
    assert second is not None
    assert first.began == second.began
    assert 0 < first.seconds < second.seconds
    assert 0 < first.cpu_seconds < second.cpu_seconds
    assert first.perceptual == second.perceptual == folder.digest(PERCEPTUAL)


def test_a_finished_call_does_nothing_and_fewer_seeds_are_a_page_of_their_own(
    scale: Scale, out: Path, inline: None
) -> None:
    folder = Folder(out)
    assert run(scale, out, "crn", seeds=2) == Outcome(2, 2, out / "evidence.md")
    rows = read_results(out / "evidence" / "tiny.csv")
    assert [(row.row, row.seed) for row in rows] == [(REAL, None), ("crn", 0), ("crn", 1)]
    assert all(row.steps == scale.steps and row.held_out == 2 and row.jobs == 2 and row.threads for row in rows)
    assert all(row.metrics["miou"] is not None and row.seconds and row.cpu_seconds for row in rows)
    assert {row.scorer for row in rows} == {folder.digest(SCORER)}
    assert {row.perceptual for row in rows} == {folder.digest(PERCEPTUAL)}
    assert len({row.config for row in rows}) == 2
    assert {row.scorer_features for row in rows} == {46}
    assert read_results(folder.results) == rows
    assert (out / "evidence" / "tiny.png").is_file()
    assert "Runs: 2, models: 1, seeds: 0, 1." in (out / "evidence.md").read_text()
    before, page = contents(out / "runs"), (out / "evidence.md").read_bytes()
    assert run(scale, out, "crn", seeds=2).finished
    assert contents(out / "runs") == before
    assert (out / "evidence.md").read_bytes() == page
    assert run(scale, out, "crn").total == 1
    assert "Runs: 1, models: 1, seeds: 0." in (out / "evidence.md").read_text()


def test_fewer_runs_do_not_replace_more(scale: Scale, tmp_path: Path, docs: Path) -> None:
    file, out = docs / "evidence" / "tiny.csv", tmp_path / "runs"
    before = contents(docs)
    with pytest.raises(ConfigError, match=rf"{file} holds 4 runs, which 3 would replace: name another docs, or"):
        run(scale, out, "pix2pix", seeds=3, docs=docs)
    assert contents(docs) == before
    assert not out.exists()


def test_a_run_that_fails_is_named_and_the_page_says_what_is_missing(
    scale: Scale, out: Path, tmp_path: Path, inline: None
) -> None:
    docs = tmp_path / "docs"
    with pytest.raises(TrainingError) as raised:
        run(scale, out, "pix2pix", "crn", docs=docs)
    assert str(raised.value).startswith("pix2pix, seed 0: pictures of 32x16 are too small for D")
    assert str(Folder(out).log("pix2pix-0")) in str(raised.value)
    assert [row.row for row in read_results(out / "evidence" / "tiny.csv")] == [REAL, "crn"]
    assert "**Incomplete: 1 of 2 runs of tiny; missing: pix2pix seed 0.**" in (out / "evidence.md").read_text()
    assert not docs.exists()
    assert run(scale, out, "crn", docs=docs).page == docs / "evidence.md"
    assert "Incomplete" not in (docs / "evidence.md").read_text()


def test_another_scorer_judges_anew_and_trains_nothing(scale: Scale, out: Path, inline: None) -> None:
    folder = Folder(out)
    assert run(scale, out, "crn").finished
    before, record = contents(folder.run("crn", 0) / "checkpoints"), load_record(folder.record("crn", 0))
    old = read_results(folder.results)[-1]
    network(folder, SCORER, seed=7)
    assert run(scale, out, "crn").finished
    new = read_results(folder.results)[-1]
    assert new.scorer == folder.digest(SCORER) != old.scorer
    assert new.metrics["scorer_fid"] != old.metrics["scorer_fid"]
    assert contents(folder.run("crn", 0) / "checkpoints") == before
    assert load_record(folder.record("crn", 0)) == record

    # A measurement of before there were digests and records.
    folder.result("crn", 0).write_text('[{"scale": "tiny", "seconds": 3.5}]')
    folder.record("crn", 0).unlink()
    assert run(scale, out, "crn").finished
    row = read_results(folder.results)[-1]
    assert (row.seconds, row.jobs, row.device, row.scorer) == (None, None, "", new.scorer)
    assert contents(folder.run("crn", 0) / "checkpoints") == before


def test_a_run_of_other_options_or_of_another_network_is_refused(scale: Scale, out: Path, inline: None) -> None:
    folder = Folder(out)
    assert run(scale, out, "crn").finished
    result = folder.result("crn", 0).read_bytes()
    network(folder, PERCEPTUAL, seed=7)
    with pytest.raises(ConfigError, match=r"crn-0 was trained with the perceptual network [0-9a-f]{12}, not .*delete"):
        run(scale, out, "crn")
    folder.scale_file.unlink()
    other = replace(scale, lr=1e-3)
    folder.claim(other)
    with pytest.raises(ConfigError, match=r"crn-0 was begun by another version of hdgan.*delete that folder"):
        run(other, out, "crn")
    assert folder.result("crn", 0).read_bytes() == result


def test_rows_that_were_judged_differently_are_refused(out: Path, result: Result) -> None:
    folder = Folder(out)
    judged = replace(result, row="crn", scorer=folder.digest(SCORER))
    for seed in (0, 1):
        real = replace(judged, row=REAL, seed=None, metrics=judged.metrics | {"miou": 0.7 + 0.01 * seed})
        save_results(folder.result("crn", seed), [real, replace(judged, seed=seed)])
    with pytest.raises(DataError, match=r"0\.7000 beside crn-0 and of 0\.7100 beside crn-1; delete .*result\.json"):
        publish(folder, ("crn",), 2, out)


def test_a_row_of_three_stages_and_an_encoder_is_trained_and_scored(scale: Scale, out: Path) -> None:
    folder, row = Folder(out), "features"
    assert job.do(folder, row, 1, "cpu", 1, 2)
    config = load_config(folder.run(row, 1))
    assert (config.seed, config.threads, config.device) == (1, 1, "cpu")
    assert len(list(folder.scenes(row, 1).glob("*.png"))) == 2
    real, result = load_results(folder.result(row, 1), folder.digest(SCORER))
    assert (real.row, real.seed, result.row, result.seed) == (REAL, None, row, 1)


def test_networks_are_trained_once(scale: Scale, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.claim(scale)
    for name in NETWORKS:
        assert job.do(folder, name, 0, "cpu", 1, 1)
    scorer, perceptual = (folder.network(name).read_bytes() for name in NETWORKS)
    assert scorer != perceptual
    assert job.do(folder, "scorer", 0, "cpu", 1, 1)
    assert folder.network("scorer").read_bytes() == scorer
    record = load_record(folder.record("scorer", 0))
    assert record is not None
    assert record.seconds > 0
    assert (record.machine.threads, record.machine.jobs) == (1, 1)


def test_a_folder_belongs_to_one_scale(scale: Scale, out: Path) -> None:
    with pytest.raises(ConfigError, match="holds runs of size tiny, not of size other: name another out"):
        Folder(out).claim(replace(scale, name="other"))
    with pytest.raises(ConfigError, match="holds runs of another version of it"):
        Folder(out).claim(replace(scale, lr=1.0))
    Folder(out).scale_file.write_text("{")
    with pytest.raises(CheckpointError, match=r"scale\.json is damaged"):
        Folder(out).claim(scale)


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
def test_numbers_below_one_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", option, "0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"hdgan: error: {option} is 0: give a whole number from 1 to ")
    assert not (tmp_path / "out").exists()
