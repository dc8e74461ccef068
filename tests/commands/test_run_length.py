"""`--epochs`, `--images` and `--steps` set the length of the whole run, whichever stages have lengths of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.commands.main import train_main
from hdgan.config.serialization import to_plain
from hdgan.training import PRESETS, TrainConfig, TrainResult

Lengths = Callable[..., list[float | None]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    """The config that a command would train."""

    def of_command(*arguments: str) -> TrainConfig:
        configs: list[TrainConfig] = []

        def train(config: TrainConfig, *, resume: bool) -> TrainResult:
            configs.append(config)
            return TrainResult(finished=True, step=1, total_steps=1, report=None)

        monkeypatch.setattr("hdgan.commands.train.train", train)
        assert train_main(list(arguments)) == 0
        return configs[0]

    return of_command


@pytest.fixture
def lengths(trained: Callable[..., TrainConfig]) -> Lengths:
    """The length of each stage that a command would train, in images or else in epochs."""

    def of_command(*arguments: str) -> list[float | None]:
        stages = trained(*arguments).stages.values()
        return [stage.epochs if stage.images is None else stage.images for stage in stages]

    return of_command


@pytest.fixture
def shortened(tmp_path: Path) -> Path:
    """The folder of a run of which only the config is left: the demo without its last stage."""
    demo = PRESETS["demo"]()
    config = replace(demo, stages={**demo.stages, "joint": replace(demo.stages["joint"], images=0)})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(to_plain(config)))
    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("demo --images 300 --stages.global.images 0 --stages.enhancer.images 0", [0, 0, 300]),
        ("demo --stages.global.images=0 --stages.enhancer.images=0 --images=300", [0, 0, 300]),
        ("demo --images 64 --stages.global.images 0", [0, 12, 52]),
        ("demo --steps 64 --batch-size 4 --stages.global.images 0", [0, 48, 208]),
        ("demo --steps 64 --stages.global.images 0 --stages.joint.batch-size 4", [0, 31, 33 * 4]),
        ("demo --epochs 6.4 --stages.global.images 0", [0, pytest.approx(1.2), pytest.approx(5.2)]),
        ("demo --epochs 6.4 --stages.global.epochs 0", [0, pytest.approx(1.2), pytest.approx(5.2)]),
        ("cityscapes-1024p --epochs 20 --stages.global.epochs 0", [0, 2, 18]),
        ("cityscapes-1024p --images 200 --stages.global.epochs 0", [0, 20, 180]),
        ("crn --images 30 --stages.fine.images 0", [30, 0]),
    ],
)
def test_a_length_is_divided_over_the_stages_that_are_left(
    lengths: Lengths, arguments: str, expected: list[float]
) -> None:
    assert lengths(*arguments.split()) == expected


def test_a_length_counts_that_is_the_preset_s(lengths: Lengths) -> None:
    stages = PRESETS["demo"]().stages.values()
    total = str(sum(stage.images or 0 for stage in stages))
    leave_out = ["--stages.global.images", "0", "--stages.enhancer.images", "0"]
    assert lengths("demo", "--images", total, *leave_out) == [0, 0, int(total)]
    assert lengths("demo", *leave_out) == [0, 0, 520]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("demo --images 970 --stages.joint.images 100", [750, 120, 100]),
        ("demo --stages.joint.images 100 --steps 122 --stages.joint.batch-size 3", [76, 12, 100]),
        ("demo --stages.joint.epochs 2 --epochs 10.7", [pytest.approx(7.5), pytest.approx(1.2), 2]),
        ("demo --images 6 --stages.global.images 1 --stages.enhancer.images 2 --stages.joint.images 3", [1, 2, 3]),
    ],
)
def test_a_stage_keeps_a_length_of_its_own(lengths: Lengths, arguments: str, expected: list[float]) -> None:
    assert lengths(*arguments.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            "demo --epochs 3 --stages.joint.images 10",
            "--epochs 3: what --stages.joint.images 10 leaves of it for the other stages is unknown, since it is in "
            "images; give --stages.joint.epochs",
        ),
        (
            "cityscapes-512p --steps 30 --stages.global.epochs 2",
            "--steps 30: what --stages.global.epochs 2 leaves of it for the other stages is unknown, since it is in "
            "epochs; give --stages.global.images",
        ),
        (
            "demo --images 101 --stages.joint.images 100",
            "--images is 101, which with --stages.joint.images 100 leaves too little for the other stages: give more",
        ),
        (
            "demo --epochs 2 --stages.joint.epochs 2",
            "--epochs is 2, which with --stages.joint.epochs 2 leaves too little for the other stages: give more",
        ),
        (
            "pix2pix --images 8 --stages.global.images 6",
            "--images is 8, but all stages have lengths of their own, 6 in all: leave --images out",
        ),
        ("pix2pix --images 8 --stages.global.images 0", "--images is 8, but all stages are left out"),
        ("demo --images 1390 --steps 5", "--images and --steps both set the length of training: give only one"),
        ("demo --steps 1 --stages.global.images 0", "--steps is 1, but there are 2 stages: give at least one for each"),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: str, complaint: str
) -> None:
    assert train_main([*arguments.split(), "--out", str(tmp_path / "run")]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resume_lengthens_the_last_stage_that_is_not_left_out(lengths: Lengths, shortened: Path) -> None:
    assert lengths("--resume", str(shortened), "--images", "900") == [750, 150, 0]
    assert lengths("--resume", str(shortened), "--steps", "900") == [750, 150, 0]
    assert lengths("--resume", str(shortened), "--images", "900", "--stages.global.images", "760") == [760, 140, 0]


def test_a_resume_takes_one_length_of_its_last_stage(capsys: pytest.CaptureFixture[str], shortened: Path) -> None:
    assert train_main(["--resume", str(shortened), "--images", "900", "--stages.enhancer.images", "7"]) == 2
    line = "--images sets the length of the last stage, and so does --stages.enhancer.images 7: give only one"
    assert line in capsys.readouterr().err
