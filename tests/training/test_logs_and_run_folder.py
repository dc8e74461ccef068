"""metrics.jsonl, progress on the terminal, and the files that describe a run."""

from __future__ import annotations

import errno
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from hdgan import progress
from hdgan.checkpoints import MODEL_FILE, checkpoint_path
from hdgan.config.serialization import to_plain
from hdgan.data import SizeConfig
from hdgan.errors import CheckpointError, ConfigError, HdganError, TrainingError
from hdgan.families import Pix2PixHDStage
from hdgan.sharding.world import World
from hdgan.training import PRESETS, TrainConfig, load_config, run_folder, train
from hdgan.training.logs import Metrics, ProgressDisplay, last_record, read_metrics
from hdgan.training.run_folder import claim_folder, locked, remove_samples, training_of, write_description

MakeConfig = Callable[..., TrainConfig]


def test_metrics_go_on_after_the_step_that_a_run_resumes_from(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.write(step, "global", {"g_gan": step / 10})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "sta')  # a kill cut this line
    resumed = Metrics(tmp_path, 2)
    resumed.write(3, "global", {"g_gan": 9.0})
    resumed.close()
    assert [(r["step"], r["g_gan"]) for r in read_metrics(tmp_path)] == [(1, 0.1), (2, 0.2), (3, 9.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "stage": "a"}\n\xff\xfe{\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 2 is damaged"):
        read_metrics(tmp_path)
    assert read_metrics(tmp_path / "nothing") == []


def test_the_last_record_is_the_last_whole_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_record(tmp_path) is None
    for unfinished in ("", '{"step": 4, "sta'):
        file.write_text(unfinished)
        assert last_record(tmp_path) is None
    file.write_text("".join(f'{{"step": {step}, "stage": "global"}}\n' for step in range(5000)) + '{"step": 5000, "sta')
    assert last_record(tmp_path) == {"step": 4999, "stage": "global"} == read_metrics(tmp_path)[-1]
    file.write_bytes(b'{"step": 1, "stage": "a"}\n\xff\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, last line is damaged.*: delete that line"):
        last_record(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        *((line, "no record with step and stage") for line in ("{}", "7", "null", '{"step": 2}', '["step", "stage"]')),
        ('{"step": 2.0, "stage": "a"}', "step is 2.0"),
        ('{"step": -1, "stage": "a"}', "step is -1"),
        ('{"step": 1, "stage": 3}', "stage is 3"),
        ('{"step": 1, "stage": "../a"}', "stage is '../a'"),
        ('{"step": 1, "stage": "a", "lr": "x"}', "lr is 'x'"),
        ('{"step": 1, "stage": "a", "lr": NaN}', "NaN is not a JSON value"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, says: str) -> None:
    record = '{"step": 1, "stage": "global"}\n'
    (tmp_path / "metrics.jsonl").write_text(f"{record}{line}\n{record}")
    with pytest.raises(CheckpointError, match=rf"line 2 is damaged \({re.escape(says)}\): delete that line"):
        read_metrics(tmp_path)


def test_a_full_disk_stops_the_metrics_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(tmp_path, 0)

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        close = flush  # closing tries once more to write what is left

    monkeypatch.setattr(metrics, "_file", Full())
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: No space left on device"):
        metrics.write(1, "global", {"g_gan": 1.0})
    metrics.close()
    assert read_metrics(tmp_path) == []


def test_plain_lines_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=300), 10, 8) as display:
        display.update(9, "joint", {"g_gan": 0.5}, 3.0)
        display.update(10, "joint", {"g_gan": 0.25}, 3.0)
    first, last = output.getvalue().splitlines()
    assert first.startswith("joint step 9/10 g_gan 0.500 3.0 img/s ETA 0:00:0")
    assert last.startswith("joint step 10/10 g_gan 0.250 3.0 img/s ETA 0:00:00")


@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_between_steps_shows_in_a_log(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.01)
    output = io.StringIO()
    display = ProgressDisplay(Console(file=output, width=100, force_terminal=terminal), 10, 0)
    with display.between_steps() as shown:
        shown("measuring validation images", 1, 16)
        until = time.monotonic() + 5
        while not terminal and not output.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert ("measuring validation images: 1 of 16" in output.getvalue()) == (not terminal)


def test_a_bar_on_a_terminal() -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=120, force_terminal=True), 10, 0) as display:
        display.update(10, "joint", {"g_gan": 0.5}, 3.0)
    assert "10/10" in output.getvalue()
    assert "g_gan 0.500" in output.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_display_that_nobody_sees_ends_no_run(terminal: bool) -> None:
    class Closed(io.StringIO):
        gone = False
        failed = 0

        def write(self, text: str) -> int:
            if self.gone:
                self.failed += 1
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    output = Closed()
    with ProgressDisplay(Console(file=output, width=120, force_terminal=terminal), 10, 0) as display:
        display.update(1, "joint", {}, 3.0)
        output.gone = True
        display.update(10, "joint", {}, 3.0)
    assert output.failed


def test_the_config_of_a_run_is_read_back(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    write_description(config, World(0, 1, torch.device("cpu")), 6, {"joint": "recompute on"})
    assert load_config(tmp_path / "run") == config
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["processes"] == 1


def test_a_resume_keeps_what_is_known_of_finished_stages(make_config: MakeConfig, tmp_path: Path) -> None:
    config, world = make_config(tmp_path / "run"), World(0, 1, torch.device("cpu"))
    first, *_, last = config.stages

    def written(steps: dict[str, str], resume: bool) -> dict[str, str]:
        write_description(config, world, 6, steps, resume=resume)
        return json.loads((tmp_path / "run" / "environment.json").read_text())["steps"]

    assert written({first: "a", last: "b", "of another run": "c"}, resume=False) == {first: "a", last: "b"}
    assert written({last: "d"}, resume=True) == {first: "a", last: "d"}
    assert written({last: "d"}, resume=False) == {last: "d"}
    (tmp_path / "run" / "environment.json").write_text("{")
    assert written({last: "e"}, resume=True) == {last: "e"}


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"out": "\xff')
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"oot": "x"}')
    with pytest.raises(CheckpointError, match="unknown option oot"):
        load_config(tmp_path)


def test_samples_of_somebody_else_are_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for content in (None, '{"model_type": "clip"}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        remove_samples(tmp_path)
        assert (tmp_path / "samples").is_dir()
    write_description(make_config(tmp_path), World(0, 1, torch.device("cpu")), 6, {"joint": "recompute on"})
    remove_samples(tmp_path)
    assert not (tmp_path / "samples").exists()


def test_a_folder_with_a_run_is_not_used_again(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    claim_folder(config, resume=False)
    checkpoint_path(tmp_path, 3).mkdir(parents=True)
    (checkpoint_path(tmp_path, 3) / MODEL_FILE).touch()
    claim_folder(config, resume=True)
    with pytest.raises(ConfigError, match=r"already contains a run, saved at step 3: .*--resume .*another out$"):
        claim_folder(config, resume=False)


@pytest.mark.parametrize("target", ["out", "nowhere"])
def test_a_link_that_leads_to_no_folder_is_refused(make_config: MakeConfig, tmp_path: Path, target: str) -> None:
    (tmp_path / "out").symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match=r"out \S+/out exists and is not a folder: choose another"):
        claim_folder(make_config(tmp_path / "out"), resume=False)


HOLDER = """
import sys, time
from pathlib import Path
from hdgan.training.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_two_processes_do_not_train_in_one_folder(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(config.out)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "LOCK_SECONDS", 0.1)
            for resume in (False, True):
                with pytest.raises(ConfigError, match=f"another process is training in {config.out}: .*another out"):
                    train(config, resume=resume, console=Console(quiet=True))
        other.kill()
        other.wait()
        with locked(config.out), monkeypatch.context() as patch:  # a killed process holds nothing
            patch.setattr(run_folder, "LOCK_SECONDS", 0.1)
            with pytest.raises(ConfigError, match="another process"), locked(config.out):
                pass
    with locked(config.out):
        assert [path.name for path in config.out.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HdganError, match=r"cannot write .*file/run: Not a directory"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "size"),
    [("pix2pix", SizeConfig(256, 256)), ("pairs-pix2pix", SizeConfig(256, 256)), ("crn", SizeConfig(512))],
)
def test_whole_pictures_are_seen_at_the_size_of_training(name: str, size: SizeConfig) -> None:
    config = PRESETS[name]()
    metadata = {"train": to_plain(config), "stage": next(iter(config.stages))}
    assert training_of(Path("model.safetensors"), metadata, config.model) == (config, size)


def test_crops_are_of_whole_pictures(make_config: MakeConfig, tmp_path: Path) -> None:
    stage = Pix2PixHDStage(size=SizeConfig(width=64, height=32, crop_width=16))
    config = make_config(tmp_path, stages={"global": stage})
    _, size = training_of(tmp_path, {"train": to_plain(config), "stage": "global"}, config.model)
    assert size == SizeConfig(width=64, height=32)
