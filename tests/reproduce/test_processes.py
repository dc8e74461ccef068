"""Processes: what they print, how they end, and that they save when a stop is requested."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from hdgan.errors import TrainingError
from hdgan.reproduce.processes import Stopped, call
from hdgan.training.interrupt import StopRequest

PROGRAM = """
import os, signal, subprocess, sys, time

command = sys.argv[1]
if command == "talk":
    print(os.environ["OMP_NUM_THREADS"], *sys.argv[2:])
if command == "compute":
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.5: pass"])
if command == "fail":
    print("a start\\n\\nhdgan: error: no such thing\\n")
    sys.exit(2)
if command == "silent":
    os._exit(9)
if command == "killed":
    print("step 7", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if command == "train":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(130)))
if command in ("train", "evaluate"):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of `hdgan`."""
    (tmp_path / "hdgan").mkdir()
    (tmp_path / "hdgan" / "__main__.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr("hdgan.reproduce.processes.LOOK_SECONDS", 0.02)


def test_output_of_all_commands_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.txt"
    for words in (["one"], ["two", "three"]):
        call(["talk", *words], log, 3, StopRequest(), [])
    assert log.read_text() == "3 one\n3 two three\n"


def test_cpu_seconds_are_those_of_children_too(tmp_path: Path) -> None:
    cpu_seconds: list[float] = []
    call(["compute"], tmp_path / "log", 1, StopRequest(), cpu_seconds)
    (found,) = cpu_seconds
    assert found > 0.5


@pytest.mark.parametrize(
    ("command", "reason"),
    [("fail", "no such thing"), ("silent", "exit status 9"), ("killed", r"killed by signal 9 \(out of memory\?\)")],
)
def test_a_failure_is_told_with_its_log(tmp_path: Path, command: str, reason: str) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(TrainingError, match=rf"^{reason} \(the whole log: {log}\)$"):
        call([command], log, 1, StopRequest(), [])


@pytest.mark.parametrize(("command", "printed"), [("train", "ready\nsaved\n"), ("evaluate", "ready\n")])
def test_a_stop_lets_a_process_save(tmp_path: Path, command: str, printed: str) -> None:
    log, stop = tmp_path / "log.txt", StopRequest()

    def request() -> None:
        while not (log.is_file() and "ready" in log.read_text()):
            time.sleep(0.02)
        stop.requested = True

    threading.Thread(target=request, daemon=True).start()
    with pytest.raises(Stopped):
        call([command], log, 1, stop, [])
    assert log.read_text() == printed
    with pytest.raises(Stopped):
        call(["talk"], log, 1, stop, [])
    assert log.read_text() == printed


def test_the_program_is_that_of_this_python(tmp_path: Path) -> None:
    (tmp_path / "hdgan" / "__main__.py").write_text("import sys; print(sys.executable)")
    call([], tmp_path / "log.txt", 1, StopRequest(), [])
    assert (tmp_path / "log.txt").read_text().strip() == sys.executable
