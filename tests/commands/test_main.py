"""The commands as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hdgan
from hdgan.commands.main import COMMANDS, SHARED, main, train_main
from hdgan.commands.parser import folded
from hdgan.data.config import LAYOUTS
from hdgan.training import TrainConfig, TrainResult

Capture = pytest.CaptureFixture[str]


def helped(capsys: Capture, command: Callable[[list[str]], int], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        command([*arguments, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def options_in(text: str) -> list[str]:
    """The options that help lists, which stand behind two characters of a frame."""
    return re.findall(r"(?m)^..(--[a-z]\S+)", text)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_hdgan_lists_its_commands(capsys: Capture, flag: str) -> None:
    assert main([flag]) == 0
    out = capsys.readouterr().out
    listed = re.findall(r"(?m)^  ([a-z]+) ", out)
    assert listed == ["train", *dict.fromkeys(name.split()[0] for name in COMMANDS)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_where_the_table_says(capsys: Capture, command: str) -> None:
    assert f"usage: hdgan {command} [-h]" in helped(capsys, main, *command.split())


def test_hdgan_alone_shows_its_usage_and_fails(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: hdgan COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: Capture) -> None:
    assert main(["trian"]) == 2
    assert "hdgan: there is no command 'trian'" in capsys.readouterr().err


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hdgan {hdgan.__version__}\n"


def test_hdgan_train_lists_its_presets(capsys: Capture) -> None:
    assert train_main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("demo", "cityscapes-512p", "cityscapes-1024p", "pairs", "--resume RUN"))
    assert "usage: hdgan-train [PRESET] " in out
    assert "(required)" not in out


def test_a_preset_lists_its_options(capsys: Capture) -> None:
    first = (
        "--data.root", "--out", "--size", "--epochs", "--images", "--steps", "--batch-size", "--lr", "--precision",
        "--device", "--workers", "--n-labels", "--dontcare", "--instances,", "--seed", "--threads", "--init-from",
        "--resume", "--dry-run", "--help-all",
    )  # fmt: skip
    others = ("--model.n-labels", "--stages.joint.images", "--loss.vgg", "--optim.clip", "--log.checkpoint-every")
    for command, prefix in ((train_main, ()), (main, ("train",))):
        out = helped(capsys, command, *prefix, "demo")
        assert options_in(out) == list(first)
        with pytest.raises(SystemExit):
            command([*prefix, "demo", "--help-all"])
        out = capsys.readouterr().out
        assert all(f"{option} " in out for option in (*first, *others))
        # The stages of a run and its data options set these.
        assert not any(option in out for option in ("--model.generator.n-enhancers", "--model.dontcare"))


@pytest.mark.parametrize("option", [["--stages.global.epochs", "2"], ["--stages.global.epochs=2"]])
def test_epochs_where_images_count_are_refused(capsys: Capture, tmp_path: Path, option: list[str]) -> None:
    assert train_main(["demo", "--out", str(tmp_path / "run"), *option]) == 2
    line = capsys.readouterr().err
    assert "--stages.global.epochs has no effect while --stages.global.images is 750: add" in line
    assert not (tmp_path / "run").exists()


def test_a_resume_lists_the_options_of_its_run(capsys: Capture, run: Path) -> None:
    out = helped(capsys, train_main, "--resume", str(run))
    assert {"--data.root", "--images", "--lr", "--workers", "--device"} <= set(options_in(out))
    assert not any(f"{option} " in out for option in ("--out", "--size", "--batch-size", "--n-labels", "--init-from"))
    with pytest.raises(SystemExit):
        train_main(["--resume", str(run), "--help-all"])
    out = capsys.readouterr().out
    assert {"--stages.joint.images", "--log.keep", "--loss.vgg"} <= set(options_in(out))
    refused = ("--out", "--init-from", "--model.", "--data.dontcare", "--data.instance-divisor")
    assert not any(option.startswith(refused) for option in options_in(out))


def test_a_resume_without_a_run_says_what_is_missing(capsys: Capture) -> None:
    assert train_main(["--resume", "--help"]) == 2
    assert "--resume needs the folder of a run, for example --resume runs/demo" in capsys.readouterr().err


def test_long_options_win_over_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = []

    def train(config: TrainConfig, *, resume: bool) -> TrainResult:
        configs.append(config)
        return TrainResult(finished=True, step=1, total_steps=1, report=None)

    monkeypatch.setattr("hdgan.commands.train.train", train)
    long = ["--stages.joint.batch-size", "2", "--stages.joint.images=10"]
    assert train_main(["demo", *long, "--batch-size", "8", "--images", "97", "--no-instances"]) == 0
    stages = configs[0].stages
    assert [stage.batch_size for stage in stages.values()] == [8, 8, 2]
    assert [stage.images for stage in stages.values()] == [75, 12, 10]
    assert not configs[0].model.instances


@pytest.mark.parametrize(
    ("typed", "recompute", "graphs"),
    [
        ([], "auto", "auto"),
        (["--recompute", "--no-cuda-graphs"], True, False),
        (["--no-recompute", "--cuda_graphs", "--seed", "3"], False, True),
        (["--recompute", "auto", "--cuda-graphs", "True"], "auto", True),
        (["--recompute=False", "--cuda-graphs=auto"], False, "auto"),
    ],
)
def test_switches_that_may_be_automatic(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], recompute: object, graphs: object
) -> None:
    configs = []

    def train(config: TrainConfig, *, resume: bool) -> TrainResult:
        configs.append(config)
        return TrainResult(finished=True, step=1, total_steps=1, report=None)

    monkeypatch.setattr("hdgan.commands.train.train", train)
    assert train_main(["demo", *typed]) == 0
    assert (configs[0].recompute, configs[0].cuda_graphs) == (recompute, graphs)


@pytest.mark.parametrize("typed", [["--recompute", "off"], ["--recompute=off"], ["--cuda-graphs", "off"]])
def test_a_switch_says_which_values_it_takes(capsys: Capture, typed: list[str]) -> None:
    with pytest.raises(SystemExit):
        train_main(["demo", *typed])
    assert re.search(r"invalid choice 'off' for argument '--(recompute|cuda-graphs)'", capsys.readouterr().err)


def test_arguments_with_nul_are_refused(capsys: Capture) -> None:
    assert train_main(["demo", "--out", "a\0b"]) == 2
    assert capsys.readouterr().err.startswith("hdgan: error: an argument contains the character NUL")


@pytest.mark.parametrize("arguments", [["train", "demo", "--out"], ["report"], ["data", "check"]])
def test_names_that_are_too_long(capsys: Capture, arguments: list[str]) -> None:
    assert main([*arguments, "x" * 300]) == 2
    assert re.fullmatch(r"\n?hdgan: error: .*xxx.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "option"),
    [("generate", "--photo"), ("edit", "--host"), ("data", "check"), ("convert", "usage: hdgan convert")],
)
def test_other_commands_list_their_options(capsys: Capture, command: str, option: str) -> None:
    assert option in helped(capsys, main, command)


def test_paragraphs_and_lists_of_docstrings_stay() -> None:
    text = "Of two\n    lines (and\n    more).\n\nThen:\n- one\n  item\n- --another\n--option"
    assert folded(text) == "Of two lines (and more).\n\nThen:\n- one item\n- --another --option"


def test_pack_offers_no_packed_layout(capsys: Capture) -> None:
    offered = []
    for command in ("check", "pack"):
        choices = re.search(r"--layout {(.*?)}", helped(capsys, main, "data", command))
        assert choices is not None
        offered.append(choices[1].split(","))
    assert offered[0] == ["auto", *LAYOUTS]
    assert offered[1] == [name for name in offered[0] if name != "packed"]


def test_lazy_names_are_listed() -> None:
    assert {"load", "Pipeline", "__version__"} <= set(dir(hdgan))
    assert all(hasattr(hdgan, name) for name in dir(hdgan))


def test_nothing_heavy_is_imported_for_help(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--help", PYTHONPROFILEIMPORTTIME="1")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    imported = {line.split("|")[-1].strip() for line in output.splitlines() if line.startswith("import time:")}
    assert "hdgan.commands.parser" in imported  # by main, which is loaded by name and so not listed
    assert not {"torch", "numpy", "PIL", "matplotlib"} & imported


def test_a_dry_run_of_a_finished_run(capsys: Capture, run: Path) -> None:
    assert train_main(["--resume", str(run), "--dry-run"]) == 0
    assert "all stages: 0:00:00" in capsys.readouterr().out


def test_interrupting_before_training_begins(capsys: Capture, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hdgan.commands.train.train", press_ctrl_c)
    assert train_main(["--resume", str(run)]) == 130
    assert capsys.readouterr().err == "hdgan: interrupted\n"


def test_from_training_to_pictures(
    capsys: Capture,
    make_config: Callable[..., TrainConfig],
    to_arguments: Callable[[TrainConfig], list[str]],
    dataset: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    assert main(["train", *to_arguments(make_config(run))]) == 0
    out = capsys.readouterr().out
    assert f"finished; report: {run / 'report.html'}" in out
    assert f"hdgan generate {run} " in out
    assert json.loads((run / "config.json").read_text())["stages"]["joint"]["images"] == 6
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "data:image/png;base64," in report

    assert train_main(["--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"resuming {run} after step 9 of 9\n" in out
    assert "finished; report: " in out

    assert train_main(["--resume", str(run), "--stages.joint.images", "8"]) == 0
    assert "joint step 10/10" in capsys.readouterr().out

    folders = ["--label", str(dataset / "test_label"), "--instance", str(dataset / "test_inst")]
    assert main(["generate", str(run), *folders, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "2 images in " in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "s1.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (32, 16), "RGB")
        assert np.asarray(image).std() > 1


@pytest.mark.parametrize("arguments", [["generate", ""], ["generate", "run", "--out="], ["report", ""]])
def test_an_empty_argument_is_not_the_current_folder(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "an argument is empty, perhaps from a shell variable that is not set" in capsys.readouterr().err


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Take the place of one of two processes that torchrun has started on this machine."""
    values = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - set(SHARED)))
def test_several_processes_of_a_command_that_needs_one_are_refused(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """By the first of them alone."""
    as_process(monkeypatch, 0)
    assert main(command.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hdgan: error: `hdgan {command}` runs in one process, but torchrun has started 2: start it")
    as_process(monkeypatch, 1)
    assert main(command.split()) == 2
    assert capsys.readouterr() == ("", "")


def test_an_environment_that_is_not_of_torchrun_is_named(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["data", "check", "folder"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("hdgan: error: RANK is 1, but WORLD_SIZE is not set: start the command with torchrun")


def test_only_the_first_process_prints_its_help(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, expected in ((0, "usage: hdgan data check"), (1, "")):
        as_process(monkeypatch, rank)
        with pytest.raises(SystemExit):
            main(["data", "check", "--help"])
        assert capsys.readouterr().out[: len(expected) or None] == expected
