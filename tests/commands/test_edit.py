from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.commands.main import main

Capture = pytest.CaptureFixture[str]


def test_without_gradio_the_remedy_is_named(styled: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdgan.commands.edit.find_spec", lambda name: None)
    assert main(["edit", str(styled)]) == 2
    assert '`pip install -e ".[editor]"`' in capsys.readouterr().err


def test_a_run_that_is_not_there(capsys: Capture, tmp_path: Path) -> None:
    assert main(["edit", str(tmp_path / "none"), "--no-browser"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_ctrl_c_ends_the_editor(styled: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("edit", str(styled), "--no-browser", "--device", "cpu")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    url = lines[-1].split()[0]
    assert url.startswith("http://127.0.0.1:"), lines
    assert urllib.request.urlopen(url).status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    "typed",
    [
        f"--host {'x' * 300}",
        "--host /no/address",
        "--port -1",
        "--port 65536",
        "--max-pixels 0",
        "--preview-gib -1",
        "--out /dev/null",
        "--root /dev/null",
        "--root /none",
    ],
)
def test_bad_options_are_refused_before_the_start(typed: str, capsys: Capture) -> None:
    assert main(["edit", "run", "--no-browser", *typed.split()]) == 2
    assert f"hdgan: error: {typed.split()[0]} " in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("options", [["PIPE"], ["RUN", "--root", "PIPE"], ["RUN", "--classes", "PIPE"]])
def test_bad_paths_are_refused_before_slow_imports(options: list[str], run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = {"RUN": str(run), "PIPE": str(tmp_path / "pipe")}
    program = (
        "import sys; from hdgan.commands.main import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'torch', 'gradio'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program, "edit", *(paths.get(option, option) for option in options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout == "2 []\n"
    (line,) = result.stderr.splitlines()
    assert paths["PIPE"] in line
