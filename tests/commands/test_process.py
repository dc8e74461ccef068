"""Closed and full streams, odd terminals, Ctrl-C while a command starts: one line or silence, and a status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hdgan.commands.process import INTERRUPTED, NARROWEST, PIPE_CLOSED, WIDEST, sensible_width

needs_shell = pytest.mark.skipif(os.name == "nt", reason="redirections of a POSIX shell")
HELP = """
from hdgan.commands import main as cli, process
cli.main = lambda: cli._guarded(lambda arguments: cli.run_command(lambda: 0, "hdgan", arguments), ["--help"])
process.run("hdgan.commands.main:main", "")
"""


def shell(command: str, **environment: str) -> tuple[int, str]:
    """Status and output of a line of bash; `help` there is the help of a command that imports nothing heavy."""
    functions = f"""hdgan() {{ "{sys.executable}" -m hdgan "$@"; }}; help() {{ "{sys.executable}" -c '{HELP}'; }}"""
    line = f"set -o pipefail; {functions}; {command}"
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


FULL = "hdgan: error: cannot write to standard output: No space left on device; free space or send it elsewhere\n"


@needs_shell
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("hdgan --version | true", PIPE_CLOSED, ""),
        ("help | true", PIPE_CLOSED, ""),
        ("hdgan --version > /dev/full", 2, FULL),
        ("help > /dev/full", 2, FULL),
        ("help >&-", 0, ""),
        ("hdgan --version <&- >&- 2>&-", 0, ""),
        ("hdgan nothing 2>&-", 2, ""),
        ("hdgan nothing 2>/dev/full", 2, ""),
    ],
)
def test_streams_that_nobody_reads(command: str, status: int, said: str) -> None:
    if "/dev/full" in command and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    assert shell(command) == (status, said)


@needs_shell
def test_a_file_opened_later_does_not_become_standard_output() -> None:
    """The system gives a new file the lowest number that is free, which is 1 where standard output is closed."""
    code = "import os, hdgan.commands.process as s; s._repair_streams(); os.write(2, b'%d' % os.open('.', 0))"
    assert shell(f'"{sys.executable}" -c "{code}" >&-') == (0, "3")


@needs_shell
def test_characters_that_the_terminal_lacks() -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert shell("hdgan pr\u00fcfen > /dev/null", **ascii_only)[0] == 2
    assert shell("hdgan \u2026 > /dev/null", PYTHONIOENCODING="ascii")[1].startswith("hdgan: there is no command")


@pytest.mark.parametrize(
    ("columns", "sensible"), [("1", NARROWEST), ("0", 80), ("x", 80), ("\u00b2", 80), ("90", 90), ("9" * 9, WIDEST)]
)
def test_the_width_that_help_is_made_for(monkeypatch: pytest.MonkeyPatch, columns: str, sensible: int) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    with sensible_width():
        assert os.environ["COLUMNS"] == str(sensible)
        assert os.environ["LINES"].isascii()
    assert os.environ["COLUMNS"] == os.environ["LINES"] == columns


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.05, 0.6])
def test_ctrl_c_while_modules_are_imported(delay: float) -> None:
    """From the moment on that hdgan's own code runs; Python itself takes some 30 ms before."""
    code = "import sys; print(flush=True); sys.argv = ['hdgan', 'info']; from hdgan.__main__ import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import hdgan.commands.process; {code}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (INTERRUPTED, "hdgan: interrupted\n")


@pytest.mark.parametrize("command", ["train", "bench", "generate", ""])
def test_memory_of_a_command_is_decided_about_before_torch_is_imported(command: str) -> None:
    code = f"""
import sys, types
import hdgan.commands.process
from hdgan import allocator
cli = types.ModuleType("hdgan.commands.main")
cli.main = lambda: print("torch" in sys.modules, allocator.allocator_name())
sys.modules["hdgan.commands.main"] = hdgan.commands.main = cli
hdgan.commands.process.run("hdgan.commands.main:main", {command!r})
"""
    keeps = command in ("train", "bench")
    asked = "keep_memory" if keeps else "use_huge_pages"
    expected = f"from hdgan import allocator; allocator.{asked}(); print(False, allocator.allocator_name())"
    ran, wanted = (
        subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, timeout=60, check=True).stdout
        for one in (code, expected)
    )
    assert ran == wanted


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "5000"),
        ({"OMP_WAIT_POLICY": "active"}, None),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"KMP_BLOCKTIME": "7"}, None),
    ],
)
def test_threads_of_a_command_spin_shortly_unless_the_user_says_how_they_wait(
    given: dict[str, str], spins: str | None
) -> None:
    """Set before torch is there, since OpenMP reads it once; `import hdgan` leaves the environment alone."""
    code = """
import os, sys, types
import hdgan, hdgan.commands.process
before = dict(os.environ)
cli = types.ModuleType("hdgan.commands.main")
cli.main = lambda: print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"), dict(os.environ) == before)
sys.modules["hdgan.commands.main"] = hdgan.commands.main = cli
hdgan.commands.process.run("hdgan.commands.main:main", "train")
"""
    names = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"False {spins} {bool(given)}\n"


@pytest.mark.parametrize("triton", [False, True])
def test_garbage_is_looked_for_from_when_work_begins(triton: bool) -> None:
    """And at the end for the sake of Triton, which would print what it takes for leaks."""
    code = f"""
import atexit, gc, sys, types
import hdgan.commands.process
atexit.register(lambda: print(gc.get_freeze_count() > 1000))

def work():
    print(gc.isenabled(), gc.get_freeze_count() > 1000)
    hdgan.commands.process.work_begins()
    print(gc.isenabled(), gc.get_freeze_count() > 1000)

cli = types.ModuleType("hdgan.commands.main")
cli.main = work
sys.modules["hdgan.commands.main"] = hdgan.commands.main = cli
if {triton}:
    sys.modules["triton"] = types.ModuleType("triton")
hdgan.commands.process.run("hdgan.commands.main:main", "generate")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False", "True", "True", str(not triton)]
