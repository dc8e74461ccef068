"""Jobs side by side: what they print, how they end, and that they end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hdgan.reproduce.workers import STOPPED, Ended, Job, Workers

ROOT = Path(__file__).parents[2]
SLEEPER = """
import sys, time
from hdgan.reproduce.workers import STOPPED, watch_parent

watch_parent()
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
    sys.exit(STOPPED)
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that jobs can be made of."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "talker.py").write_text("import os, sys; print(os.environ['OMP_NUM_THREADS'], *sys.argv[1:])")
    (tmp_path / "failing.py").write_text("print('a start\\n\\n'); raise ValueError('no such thing')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))


def job(folder: Path, module: str, *arguments: str) -> Job:
    return Job(" ".join([module, *arguments]), module, arguments, folder / "logs" / f"{module}{len(arguments)}.txt")


def finish(workers: Workers) -> list[Ended]:
    ended = []
    while workers.busy:
        ended += workers.poll()
        time.sleep(0.02)
    return ended


def wait_for(file: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (file.is_file() and text in file.read_text()):
        assert time.monotonic() < deadline, f"{file} never said {text}"
        time.sleep(0.02)


def test_jobs_run_with_their_arguments_and_threads_and_leave_a_log(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "talker"), job(tmp_path, "talker", "one")]
    with Workers(jobs, 2, threads=3) as workers:
        ended = finish(workers)
    assert {(one.job, one.status) for one in ended} == {(one, 0) for one in jobs}
    assert [one.log.read_text() for one in jobs] == ["3\n", "3 one\n"]


def test_no_more_run_than_are_allowed_at_once(tmp_path: Path) -> None:
    with Workers([job(tmp_path, "talker", *"abc"[:count]) for count in range(4)], 1, 1) as workers:
        seen, ended = [], 0
        while workers.busy:
            ended += len(workers.poll())
            seen.append(len(workers.running))
    assert max(seen) == 1
    assert ended == 4


def test_a_failure_is_told_by_its_last_line(tmp_path: Path) -> None:
    with Workers([job(tmp_path, "failing")], 1, 1) as workers:
        (ended,) = finish(workers)
    assert ended.status == 1
    assert ended.reason == "ValueError: no such thing"


def test_a_silent_failure_is_told_by_its_status(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("import os; os._exit(9)")
    with Workers([job(tmp_path, "silent")], 1, 1) as workers:
        (ended,) = finish(workers)
    assert ended.reason == "exit status 9"


def test_a_killed_job_is_told_by_its_signal(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text("import os; print('step 7', flush=True); os.kill(os.getpid(), 9)")
    with Workers([job(tmp_path, "killed")], 1, 1) as workers:
        (ended,) = finish(workers)
    assert ended.job.log.read_text() == "step 7\n"
    assert ended.reason == "killed by signal 9 (out of memory?)"


def test_stop_lets_jobs_save_and_starts_no_others(tmp_path: Path) -> None:
    first, second = job(tmp_path, "sleeper"), job(tmp_path, "talker")
    with Workers([first, second], 1, 1) as workers:
        workers.poll()
        wait_for(first.log, "ready")
        workers.stop()
        (ended,) = finish(workers)
    assert (ended.job, ended.status) == (first, STOPPED)
    assert first.log.read_text() == "ready\nsaved\n"
    assert not second.log.exists()


def test_an_error_in_the_parent_leaves_no_job_behind(tmp_path: Path) -> None:
    workers = Workers([job(tmp_path, "sleeper")], 1, 1)

    def fail() -> None:
        with workers:
            workers.poll()
            raise RuntimeError("parent")

    with pytest.raises(RuntimeError, match="parent"):
        fail()
    (process,) = workers.running.values()
    assert process.returncode is not None


def test_jobs_of_a_killed_parent_save_and_end(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sleeper.txt"
    parent = f"""
import time
from pathlib import Path
from hdgan.reproduce.workers import Job, Workers

with Workers([Job("sleeper", "sleeper", (), Path({str(log)!r}))], 1, 1) as workers:
    workers.poll()
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_for(log, "ready")
        process.kill()
    wait_for(log, "saved")
    assert log.read_text() == "ready\nsaved\n"
