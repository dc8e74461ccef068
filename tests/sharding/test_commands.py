"""Commands whose work several processes share: the files of one, one message at the end, nothing half written."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from hdgan.commands.main import main
from hdgan.data.packed_index import load_index
from tests.conftest import MakeData
from tests.sharding.several import end_all, environments, start_all

COMMANDS = """
import json, os, sys
from hdgan.commands.main import main
{code}
for port, arguments in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = port
    if status := main(arguments):
        sys.exit(status)
"""


def run_commands(size: int, commands: Sequence[Sequence[str]], code: str = "") -> tuple[list[int], list[str]]:
    """Run commands one after the other in several processes; returns the exit status of each and what it printed."""
    ports = [environments(size)[0]["MASTER_PORT"] for _ in commands]
    return end_all(
        start_all(size, ["-c", COMMANDS.format(code=code), json.dumps(list(zip(ports, commands, strict=True)))])
    )


def all_commands(run: Path, dataset: Path, scorer: Path, folder: Path) -> list[list[str]]:
    shutil.copytree(run, folder / "run")
    evaluate = ["evaluate", str(run), "--out", str(folder / "evaluation"), "--scorer", str(scorer), "--phase", "train"]
    return [
        [*evaluate, "--max-images", "5", "--pictures", "2", "--device", "cpu"],
        ["styles", "encode", str(folder / "run"), "--device", "cpu"],
        ["data", "check", str(dataset), "--n-labels", "4"],
        ["data", "pack", str(dataset), "--out", str(folder / "packed"), "--width", "16"],
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The files by name; without the minute in which the page of an evaluation was written."""
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    page = "evaluation/evaluation.html"
    return files | {page: re.sub(rb">written [^<]*", b"", files[page])}


def report_of(output: str) -> str:
    """What `data check` prints."""
    return output[output.index("test (nvidia)") : output.index("covers every label")]


@pytest.fixture(scope="module")
def alone(
    run: Path, dataset: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], str]:
    """The files that one process writes, and what it prints."""
    folder = tmp_path_factory.mktemp("alone")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert [main(command) for command in all_commands(run, dataset, scorer, folder)] == [0, 0, 0, 0]
    return contents(folder), printed.getvalue()


@pytest.mark.slow
def test_several_processes_write_what_one_writes(
    alone: tuple[dict[str, bytes], str], run: Path, dataset: Path, scorer: Path, tmp_path: Path
) -> None:
    size = 3  # of which one has no share of the two test samples
    files, printed = alone
    codes, outputs = run_commands(size, all_commands(run, dataset, scorer, tmp_path))
    assert codes == [0] * size, outputs
    found = contents(tmp_path)
    assert found.keys() == files.keys()
    assert [name for name, content in files.items() if found[name] != content] == []
    assert report_of(outputs[0]) == report_of(printed)
    assert outputs[1:] == [""] * (size - 1)


KILLED = """
import signal
from hdgan.data import pack
plain = pack._Packer.write
def write(self, folder, pair, replacing):
    if os.environ["RANK"] == "1" and pair.stem == "s3":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, folder, pair, replacing)
pack._Packer.write = write
"""


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_a_repeat_goes_on(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    command = ["data", "pack", str(dataset), "--out", str(out), "--phase", "train", "--workers", "1"]
    codes, outputs = run_commands(2, [command], KILLED)
    assert codes == [2, -9], outputs
    [line] = [line for line in outputs[0].splitlines() if "hdgan: error" in line]
    assert line.startswith("hdgan: error: another process has ended; its message says why, unless it was killed (")
    assert not load_index(out).complete
    assert main(command) == 0
    assert re.search(r"6 samples, .*, [1-5] of them already written", capsys.readouterr().out)
    assert load_index(out).complete


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["s4", "s1"], ids=["in the first process", "in the second process"])
def test_a_process_that_fails_ends_all_with_one_message(make_data: MakeData, tmp_path: Path, damaged: str) -> None:
    """With a photo that is not among those that are read before the work."""
    data, out = make_data(), tmp_path / "out"
    photo = data / f"train_img/{damaged}_img.png"
    photo.write_bytes(photo.read_bytes()[:-60])
    codes, outputs = run_commands(2, [["data", "pack", str(data), "--out", str(out), "--phase", "train"]])
    assert codes == [2, 2], outputs
    [line] = [line for line in "".join(outputs).splitlines() if "hdgan: error" in line]
    assert photo.name in line
    assert not load_index(out).complete
    assert [file.name for file in out.rglob("*") if file.suffix == ".hdtmp"] == []
