"""benchmarks/run_gpu.sh, with stand-ins for Python and NVIDIA's tools that note how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_gpu.sh"
STAND_IN = """#!/usr/bin/env bash
echo "${0##*/} $*" >> "$CALLS"
case "$*" in
  *get_device_capability*) [[ -z ${NO_GPU:-} ]] || exit 1; echo 9.0 ;;
  *"${FAILS:-nothing fails}"*) exit 3 ;;
  *"${SLEEPS:-nothing sleeps}"*) exec sleep 30 ;;
esac
"""
TOOLS = ("python3", "python", "ncu", "compute-sanitizer")


@dataclass
class Done:
    status: int
    output: str
    errors: str
    calls: list[str]
    steps: dict[str, str]
    out: Path

    def count(self, text: str) -> int:
        return sum(text in call for call in self.calls)


class Machine:
    """A copy of the script in a checkout of its own, and a PATH that begins with stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.root, self._calls = folder / "checkout", folder / "calls"
        (self.root / "benchmarks").mkdir(parents=True)
        shutil.copy(SCRIPT, self.root / "benchmarks")
        self.tools = folder / "bin"
        self.tools.mkdir()
        for name in TOOLS:
            (self.tools / name).write_text(STAND_IN)
            (self.tools / name).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> Done:
        self._calls.write_text("")
        settings = {"PATH": f"{self.tools}{os.pathsep}{os.defpath}", "CALLS": str(self._calls), **environment}
        command = ["bash", str(self.root / "benchmarks" / "run_gpu.sh"), *arguments]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=self.root, timeout=120)
        file = self.root / "build" / "gpu" / "steps.tsv"
        lines = [line.split("\t") for line in file.read_text().splitlines()] if file.is_file() else []
        steps = {name: status for name, status, _ in lines}
        calls = self._calls.read_text().splitlines()
        return Done(done.returncode, done.stdout, done.stderr, calls, steps, self.root / "results")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_both_parts_of_a_quick_run(machine: Machine) -> None:
    (machine.root / "wheels").mkdir()
    (machine.root / "wheels" / "tyro-1-py3-none-any.whl").write_text("")
    done = machine.run("quick", "results")
    assert done.status == 0
    assert set(done.steps.values()) == {"ok"}
    assert list(done.steps)[:3] == ["wheels", "build", "info"]
    assert {"tests: CUDA", "tests: Triton", "tests: many elements", "memcheck", "speed"} <= set(done.steps)
    assert {name for name in done.steps if name.startswith("ncu")} == {"ncu: instance_norm_act", "ncu: avg_pyramid"}
    assert done.count("setup.py -q egg_info build_ext --inplace") == 2
    assert done.count("--no-index --no-deps") == 2
    assert done.count("hdgan.benchmarks.verdict") == 2
    assert not [call for call in done.calls if call.startswith("python ")]
    # What comes back from a machine is at most eight files.
    files = {path.name for path in done.out.rglob("*") if path.is_file()}
    assert files == {"quick-check.log", "quick-speed.log", "memcheck.log", "ncu.csv"}
    for part in ("quick-check", "quick-speed"):
        assert f"== {part} took" in (done.out / f"{part}.log").read_text().splitlines()[-1]


def test_tests_run_on_many_processes_where_they_can(machine: Machine) -> None:
    def triton(**environment: str) -> str:
        done = machine.run("quick-check", "results", **environment)
        (call,) = (call for call in done.calls if "-k triton and" in call)
        return call

    assert "-m gpu -n " in triton()
    assert "-m gpu tests/ops" in triton(FAILS="import xdist")


def test_a_step_that_fails_is_noted_and_the_others_go_on(machine: Machine) -> None:
    done = machine.run("quick", "results", FAILS="-k triton and")
    assert done.status == 1
    assert {name: status for name, status in done.steps.items() if status != "ok"} == {
        "tests: Triton": "failed with status 3"
    }
    assert "== tests: Triton: failed with status 3" in (done.out / "quick-check.log").read_text()


def test_what_takes_too_long_is_stopped_and_the_rest_is_named(machine: Machine) -> None:
    done = machine.run("quick-check", "results", "8", SLEEPS="-k not triton")
    assert done.status == 1
    assert done.steps["tests: CUDA"] == "out of time"
    assert done.steps["tests: Triton"] == "no time was left"
    assert done.steps["memcheck"] == "ok"


def test_a_machine_without_a_gpu_is_told_at_once(machine: Machine) -> None:
    done = machine.run("quick-check", "results", NO_GPU="1")
    assert done.status == 1
    assert done.steps == {"build": "failed: torch finds no GPU"}
    assert done.count("-m pytest") == 0
    assert done.count("hdgan.benchmarks.verdict") == 1


def test_tools_that_are_missing_are_named(machine: Machine) -> None:
    for name in ("ncu", "compute-sanitizer"):
        (machine.tools / name).unlink()
    done = machine.run("quick", "results")
    assert done.status == 1
    assert done.steps["ncu"] == "ncu is not installed"
    assert done.steps["memcheck"] == "compute-sanitizer is not installed"


def test_speed_may_run_on_its_own(machine: Machine) -> None:
    done = machine.run("quick-speed", "results", "100")
    assert done.status == 0
    assert "memcheck" not in done.steps
    (call,) = (call for call in done.calls if "hdgan.benchmarks.quick" in call)
    assert call.startswith(f"python3 -m hdgan.benchmarks.quick {done.out} --device cuda --seconds ")
    assert 0 < int(call.split()[-1]) <= 10  # ninety seconds are kept for ncu and the verdict


def test_a_rehearsal_asks_for_no_gpu(machine: Machine) -> None:
    done = machine.run("--cpu", "quick", "results", NO_GPU="1")
    assert done.status == 0
    assert done.count("--device cuda") == 0
    assert done.count("-m gpu") == 0
    assert done.count("--device cpu") == 5  # speed, two of ncu, and two verdicts


@pytest.mark.parametrize("part", ["check", "speed", "compile", "profile", "publish"])
def test_the_long_parts_run(machine: Machine, part: str) -> None:
    done = machine.run(part, "results")
    assert done.status == 0, done.output
    assert done.count("hdgan.benchmarks.verdict") == (part != "publish")
    assert len(done.steps) >= 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no part is given"),
        (["fast"], "there is no part fast"),
        (["quick check"], "there is no part quick check"),
        (["quick", "results", "soon"], "SECONDS is soon"),
        (["quick", "results", "0"], "SECONDS is 0"),
        (["quick", "results", "9", "more"], "there is more than a part, a folder and seconds"),
        (["--cpu", "speed", "results"], "--cpu rehearses quick parts, not speed"),
    ],
)
def test_wrong_arguments(machine: Machine, arguments: list[str], says: str) -> None:
    done = machine.run(*arguments)
    assert done.status == 2
    assert done.errors.startswith(f"run_gpu.sh: {says}; run_gpu.sh [--cpu] PART [OUT [SECONDS]], where PART is one of ")
    assert not done.calls
    assert not done.out.exists()
