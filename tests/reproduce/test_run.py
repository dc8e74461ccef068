"""Whole calls at a tiny scale: stopped, gone on with, repeated, failing."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan.checkpoints import MODEL_FILE, checkpoint_path, list_steps
from hdgan.commands.main import main
from hdgan.config.serialization import to_plain
from hdgan.errors import CheckpointError, ConfigError, DataError, TrainingError
from hdgan.families.crn.losses import CRNLoss
from hdgan.files.json import write_json
from hdgan.metrics.scores import METRICS
from hdgan.reproduce import run as run_module
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.kept import KeptRows
from hdgan.reproduce.perceptual import choose_network
from hdgan.reproduce.plan import NETWORKS, PERCEPTUAL, SCORER
from hdgan.reproduce.publish import publish
from hdgan.reproduce.record import Machine, Record, load_record
from hdgan.reproduce.results import REAL, Result, load_requested, read_results
from hdgan.reproduce.run import Reproduction, reproduce
from hdgan.reproduce.scales import SCALES, Scale
from hdgan.training import load_config
from hdgan.training.run_folder import CONFIG_FILE, locked
from tests.reproduce.calls import QUIET, contents, network, run

MACHINE = Machine("CPU", cores=2, threads=1, jobs=2)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_call_goes_on(folder: Folder, inline: None) -> None:
    longer = replace(folder, scale=replace(folder.scale, joint=100))
    (folder.root / "scale.json").unlink()
    code = f"""
import json
from pathlib import Path
from hdgan.config.serialization import from_plain
from hdgan.reproduce.scales import Scale
from hdgan.reproduce.run import reproduce

scale = from_plain(Scale, json.loads({json.dumps(to_plain(longer.scale))!r}), "scale")
ended = reproduce(scale, Path({str(folder.root)!r}), seeds=1, jobs=2, device="cpu", rows=["crn"])
print("finished", ended.finished, ended.page)
"""
    job = Job(longer, "crn", 0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (job.run / "metrics.jsonl").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert "crn, seed 0: saved (0 of 1 runs)" in printed
    assert "finished False None" in printed
    stopped = list_steps(job.run)[-1]
    assert 0 < stopped < longer.scale.steps
    first = load_record(job.record)

    assert run(longer, "crn") == Reproduction(1, 1, folder.root / "evidence.md")
    assert f"resuming {job.run} after step {stopped}" in job.log.read_text()
    second = load_record(job.record)
    assert first is not None
    assert second is not None
    assert first.began == second.began
    assert 0 < first.seconds < second.seconds
    assert 0 < first.cpu_seconds < second.cpu_seconds
    assert first.perceptual == second.perceptual == folder.digest(PERCEPTUAL)


def test_a_finished_call_does_nothing_and_fewer_seeds_are_a_page_of_their_own(folder: Folder, inline: None) -> None:
    out, printed = folder.root, io.StringIO()
    assert run(folder, "crn", seeds=2, console=Console(file=printed)).finished
    assert "crn, seed 1: done (" in printed.getvalue()
    rows = read_results(out / "results.csv")
    assert [(row.row, row.seed) for row in rows] == [(REAL, None), ("crn", 0), ("crn", 1)]
    assert all(row.steps == folder.scale.steps and row.held_out == 2 and row.jobs == 2 and row.threads for row in rows)
    assert all(row.metrics["miou"] is not None and row.seconds and row.cpu_seconds == 1.0 for row in rows)
    assert all("iou_road" in row.metrics for row in rows)
    assert [row.metrics["psnr"] is None for row in rows] == [True, False, False]
    assert {row.scorer for row in rows} == {folder.digest(SCORER)}
    assert {row.perceptual for row in rows} == {folder.digest(PERCEPTUAL)}
    assert len({row.config for row in rows}) == 2
    assert {row.scorer_features for row in rows} == {46}
    strips = {file.name for file in (out / "evidence" / "tiny").iterdir()}
    assert strips == {"label.png", "real.png", "crn-0.png"}
    assert "Runs: 2, models: 1, seeds: 0, 1." in (out / "evidence.md").read_text()
    before, page = contents(out / "runs"), (out / "evidence.md").read_bytes()
    assert run(folder, "crn", seeds=2).finished
    assert contents(out / "runs") == before
    assert (out / "evidence.md").read_bytes() == page
    assert run(folder, "crn").total == 1
    assert "Runs: 1, models: 1, seeds: 0." in (out / "evidence.md").read_text()


def test_the_commands_of_a_dry_run_do_the_work(scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDGAN_CACHE", str(tmp_path / "cache"))
    folder = Folder(tmp_path / "out", scale)

    def planned() -> Reproduction:
        return reproduce(scale, folder.root, seeds=1, jobs=2, device="cpu", rows=["crn"], dry_run=True, console=QUIET)

    first = planned()
    assert (first.done, first.total, first.page) == (0, 1, None)
    assert [command.split()[1] for command in first.commands] == ["data", "evaluate", "evaluate", "train", "evaluate"]
    assert not folder.root.exists()
    for command in first.commands:
        assert main(shlex.split(command)[1:]) == 0
    assert Job(folder, "crn", 0).is_trained()
    assert planned().commands == first.commands[-1:]  # `reproduce` itself collects the scores


@pytest.mark.parametrize(
    ("precision", "trained", "noted"), [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)]
)
def test_a_cpu_without_bfloat16_has_a_note_if_it_trains(
    scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, trained: bool, noted: bool
) -> None:
    monkeypatch.setattr(run_module, "emulates_bfloat16", lambda device: True)
    monkeypatch.setattr(Job, "is_trained", lambda job: trained)
    text = io.StringIO()
    planned = replace(scale, precision=precision)
    reproduce(
        planned, tmp_path / "out", device="cpu", rows=["crn"], dry_run=True, console=Console(file=text, width=200)
    )
    assert ("size tiny trains in bfloat16, for which this CPU has no instructions" in text.getvalue()) == noted


def test_a_dry_run_takes_the_networks_beside_the_rows(folder: Folder, tmp_path: Path, inline: None) -> None:
    docs, out = tmp_path / "docs", tmp_path / "other"
    assert run(folder, "crn", docs=docs).finished
    planned = reproduce(
        folder.scale, out, seeds=2, jobs=2, device="cpu", docs=docs, rows=["crn"], dry_run=True, console=QUIET
    )
    copies = [
        command
        for name in NETWORKS
        for command in (
            f"mkdir -p {out}/networks",
            f"cp {docs}/evidence/tiny.{name}.safetensors {out}/networks/{name}.safetensors",
        )
    ]
    assert planned.commands[:-2] == tuple(copies)
    assert [command.split()[:2] for command in planned.commands[-2:]] == [["hdgan", "train"], ["hdgan", "evaluate"]]
    assert not out.exists()


def test_a_dry_run_refuses_what_the_call_refuses(folder: Folder) -> None:
    def planned(scale: Scale) -> Reproduction:
        return reproduce(scale, folder.root, seeds=1, device="cpu", rows=["crn"], dry_run=True, console=QUIET)

    with pytest.raises(ConfigError, match=r"contains runs of size tiny, not of size small: choose another out"):
        planned(SCALES["small"])
    times = ("2026-11-23T03:09:57+00:00", "2026-11-23T03:10:57+00:00", 60.0, 60.0)
    write_json(Job(folder, "crn", 0).record, Record(*times, MACHINE, perceptual="0123456789ab"))
    folder.network(PERCEPTUAL).unlink()
    with pytest.raises(ConfigError, match=r"network 0123456789ab, not with one that is trained first: delete that"):
        planned(folder.scale)


def test_rows_do_not_get_lost(scale: Scale, tmp_path: Path, docs: Path) -> None:
    file, out = docs / "evidence" / "tiny.csv", tmp_path / "runs"
    before = contents(docs)
    says = rf"{file} contains 2 runs that this call would lose: pix2pixhd seed 0, pix2pixhd seed 1: choose another docs"
    with pytest.raises(ConfigError, match=says):
        run(Folder(out, scale), "pix2pix", seeds=3, docs=docs)
    assert contents(docs) == before
    assert not out.exists()


def test_a_run_that_fails_is_named_and_the_page_says_what_is_missing(
    folder: Folder, tmp_path: Path, inline: None
) -> None:
    docs, out = tmp_path / "docs", folder.root
    with pytest.raises(TrainingError, match=r"^pix2pix, seed 0: .*images of 32x16 are too small for D"):
        run(folder, "pix2pix", "crn", docs=docs)
    assert [row.row for row in read_results(out / "evidence" / "tiny.csv")] == [REAL, "crn"]
    assert "**Incomplete: 1 of 2 runs of tiny; missing: pix2pix seed 0.**" in (out / "evidence.md").read_text()
    assert not docs.exists()
    assert run(folder, "crn", docs=docs).page == docs / "evidence.md"
    assert "Incomplete" not in (docs / "evidence.md").read_text()


def test_another_scorer_scores_again_and_trains_nothing(folder: Folder, inline: None) -> None:
    job, results = Job(folder, "crn", 0), folder.root / "results.csv"
    assert run(folder, "crn").finished
    before, record = contents(job.run / "checkpoints"), load_record(job.record)
    old = read_results(results)[-1]
    network(folder, SCORER, seed=7)
    assert run(folder, "crn").finished
    new = read_results(results)[-1]
    assert new.scorer == folder.digest(SCORER) != old.scorer
    assert new.metrics["scorer_fid"] != old.metrics["scorer_fid"]
    assert contents(job.run / "checkpoints") == before
    assert load_record(job.record) == record

    # A measurement from before there were digests and records.
    job.result.write_text('[{"scale": "tiny", "seconds": 3.5}]')
    job.record.unlink()
    assert run(folder, "crn").finished
    row = read_results(results)[-1]
    assert (row.seconds, row.jobs, row.device, row.scorer) == (None, None, "", new.scorer)
    assert contents(job.run / "checkpoints") == before


def test_a_run_of_other_options_or_of_another_network_is_refused(folder: Folder, inline: None) -> None:
    job = Job(folder, "crn", 0)
    assert run(folder, "crn").finished
    result = job.result.read_bytes()
    (folder.root / "scale.json").unlink()
    other = replace(folder, scale=replace(folder.scale, lr=1e-3))
    job.result.unlink()
    says = r"crn-0 was trained with stages\.coarse\.lr 0\.0004 instead of 0\.001, by hand or .*: delete that folder"
    with pytest.raises(ConfigError, match=says):
        run(other, "crn")
    job.result.write_bytes(result)
    (folder.root / "scale.json").unlink()
    network(folder, PERCEPTUAL, seed=7)
    with pytest.raises(ConfigError, match=r"crn-0 was trained with the perceptual network [0-9a-f]{12}, not .*delete"):
        run(folder, "crn")
    assert job.result.read_bytes() == result


def test_a_finished_run_with_an_option_that_no_row_has_is_refused(folder: Folder, inline: None) -> None:
    assert run(folder, "crn").finished
    file = Job(folder, "crn", 0).run / CONFIG_FILE
    config = load_config(file.parent)
    write_json(file, replace(config, optim=replace(config.optim, beta1=0.9)))
    with pytest.raises(ConfigError, match=r"crn-0 was trained with optim\.beta1 0\.9 instead of 0\.5, by hand or"):
        run(folder, "crn")


def test_rows_name_the_network_that_was_given(scale: Scale, tmp_path: Path, program: Path, inline: None) -> None:
    out, docs, rows = tmp_path / "out", tmp_path / "docs", ("crn", "gan-fm")
    for _ in range(2):  # the second call finds everything done
        ended = reproduce(
            scale, out, seeds=1, jobs=2, device="cpu", docs=docs, network=str(program), rows=rows, console=QUIET
        )
        assert ended.finished
    folder = Folder(out, scale, choose_network(str(program), None, scale))
    assert not folder.network(PERCEPTUAL).exists()
    digest = sha256(program.read_bytes()).hexdigest()[:12]
    found = {row.row: (row.network, row.perceptual) for row in read_results(docs / "evidence" / "tiny.csv")}
    assert found == {REAL: ("features.pt", digest), "crn": ("features.pt", digest), "gan-fm": ("", "")}
    asked = load_requested(docs / "evidence" / "tiny.csv")
    assert (list(asked.networks), asked.noise, asked.feature_weights) == (["scorer"], 0.3, (0.5, 0.25))
    assert f"compares the features of `features.pt` (SHA-256 {digest}…" in (docs / "evidence.md").read_text()
    loss = load_config(Job(folder, "crn", 0).run).loss
    assert isinstance(loss, CRNLoss)
    assert loss.network == str(program)


def test_a_folder_keeps_its_network(folder: Folder, program: Path, inline: None) -> None:
    other = replace(folder, loss_network=choose_network(str(program), None, folder.scale))
    says = r"perceptual network is a twin of the scorer, not features\.pt \([0-9a-f]{12}\): give the same network, or"
    with pytest.raises(ConfigError, match=says):
        other.claim()
    (folder.root / "network.json").unlink()
    other.claim()
    with pytest.raises(ConfigError, match=r"is features\.pt \([0-9a-f]{12}\), not a twin of the scorer"):
        run(folder, "crn")
    (folder.root / "network.json").write_text('{"name": 3}')
    with pytest.raises(CheckpointError, match=r"network\.json"):
        folder.claim()


def test_a_resume_takes_the_network_from_where_it_is_now(scale: Scale, tmp_path: Path, program: Path) -> None:
    folder = Folder(tmp_path / "out", scale, choose_network(str(program), None, scale))
    with_loss, without = Job(folder, "crn", 0), Job(folder, "gan", 0)
    for job in (with_loss, without):
        model = checkpoint_path(job.run, 1) / MODEL_FILE
        model.parent.mkdir(parents=True)
        model.touch()
    command = with_loss.commands(MACHINE, "cpu")[0]
    assert command[:3] == ["train", "--resume", str(with_loss.run)]
    assert command[command.index("--loss.network") + 1] == str(program)
    assert "--loss.network" not in without.commands(MACHINE, "cpu")[0]


def test_a_folder_that_was_moved_goes_on(folder: Folder, tmp_path: Path, inline: None) -> None:
    job = Job(folder, "crn", 0)
    assert main(job.commands(MACHINE, "cpu")[0]) == 0
    moved = replace(folder, root=folder.root.rename(tmp_path / "moved"))
    shorter = Job(moved, "crn", 0)
    shorter.require_same()
    assert run(moved, "crn").finished


def test_rows_that_were_scored_differently_are_refused(folder: Folder, result: Result) -> None:
    runs = [Job(folder, "crn", seed) for seed in (0, 1)]
    metrics = dict.fromkeys(METRICS) | result.metrics
    scored = replace(result, row="crn", scorer=folder.digest(SCORER), metrics=metrics)
    for job in runs:
        real = replace(scored, row=REAL, seed=None, metrics=scored.metrics | {"miou": 0.7 + 0.01 * job.seed})
        write_json(job.result, [real, replace(scored, seed=job.seed)])
    with pytest.raises(DataError, match=r"0\.7000 beside crn-0 and of 0\.7100 beside crn-1; delete .*result\.json"):
        publish(folder, [], runs, folder.root, KeptRows(folder.root / "evidence" / "tiny.csv"))


def test_a_row_of_three_stages_and_an_encoder_is_trained_and_scored(folder: Folder, inline: None) -> None:
    job = Job(folder, "features", 0)
    assert run(folder, "features").finished
    config = load_config(job.run)
    assert (config.seed, config.threads, config.device) == (0, 1, "cpu")
    real, result = job.results()
    assert (real.row, real.seed, result.row, result.seed) == (REAL, None, "features", 0)


def test_networks_are_trained_once(scale: Scale, tmp_path: Path, inline: None) -> None:
    folder = Folder(tmp_path, scale)
    assert run(folder, "crn").finished
    scorer, perceptual = (folder.network(name).read_bytes() for name in NETWORKS)
    assert scorer != perceptual
    assert run(folder, "crn").finished
    assert folder.network(SCORER).read_bytes() == scorer
    record = load_record(Job(folder, SCORER, 0).record)
    assert record is not None
    assert record.seconds > 0
    assert (record.machine.threads, record.machine.jobs) == (1, 2)


def test_a_folder_belongs_to_one_scale_and_one_process(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="contains runs of size tiny, not of size other: choose another out"):
        replace(folder, scale=replace(folder.scale, name="other")).claim()
    with pytest.raises(ConfigError, match="contains runs of another version of it"):
        replace(folder, scale=replace(folder.scale, lr=1.0)).claim()
    monkeypatch.setattr("hdgan.training.run_folder.LOCK_SECONDS", 0)
    with locked(folder.root), pytest.raises(ConfigError, match="another process is training in"):
        run(folder, "crn")
    (folder.root / "scale.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"scale\.json is damaged"):
        folder.claim()


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (4, 2), (16, 8), (64, 8)])
def test_jobs_on_a_gpu_have_two_cores_each(cores: int, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "choose_device", torch.device)
    monkeypatch.setattr(run_module, "available_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    assert run_module._machine("cuda:0", None) == Machine("H200", cores, max(1, cores // jobs), jobs)
    assert run_module._machine("cpu", None) == Machine("CPU", cores, 1, cores)
    assert run_module._machine("cuda:0", 3).jobs == 3


@pytest.mark.parametrize("option", ["--seeds", "--jobs"])
def test_numbers_below_one_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", option, "0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"hdgan: error: {option} is 0: give a whole number from 1 to ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("out", "docs"), [("loop", "docs"), ("loop", None), ("out", "loop"), ("file", "file")])
def test_folders_that_are_none_are_refused_before_any_work(
    out: str, docs: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    option = "--docs" if docs == "loop" else "--out"
    more = [] if docs is None else ["--docs", str(tmp_path / docs)]
    assert main(["reproduce", "--out", str(tmp_path / out), *more]) == 2
    wrong = tmp_path / (docs if option == "--docs" and docs else out)
    assert f"{option} {wrong} exists and is not a folder: choose another" in capsys.readouterr().err
