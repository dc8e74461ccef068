"""URLs of data on command lines, and those that are given for paths of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.commands.main import main
from hdgan.commands.urls import refuse_urls, without_hosts
from hdgan.errors import ConfigError

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("train", "pix2pixhd --data.root s3://b/set --out runs/a --loss.network local-dir:/w"),
        ("train", "pix2pixhd --data.root=s3://b/set"),
        ("train", "pix2pixhd --data_root x --data.root memory://set"),
        ("data check", "s3://b/set --phase train"),
        ("data check", "--instances s3://b/set"),
        ("data pack", "s3://b/set --out packed"),
        ("generate", "run --label gs://b/l --instance=gs://b/i --photo https://h/p.png --out o"),
        ("styles encode", "hf:owner/name --root simplecache::s3://b/set"),
        ("evaluate", "run --root s3://b/set"),
    ],
)
def test_data_may_be_at_a_url(command: str, typed: str) -> None:
    refuse_urls(command, typed.split())


@pytest.mark.parametrize(
    ("command", "typed", "message"),
    [
        (
            "train",
            "demo --out s3://b/run",
            r"^--out s3://b/run: hdgan needs a path of this .* only --data\.root may be",
        ),
        ("train", "--resume=s3://b/run", "^--resume s3://b/run: "),
        ("train", "--init_from gs://b/run", "^--init-from gs://b/run: "),
        ("data pack", "set --out s3://b/set", "^--out s3://b/set: .*; only FOLDER may be a URL"),
        ("data pack", "set --out=s3://b/set", "^--out s3://b/set: "),
        (
            "generate",
            "s3://b/run --label a --out b",
            "^s3://b/run: .* only --label, --instance, --input, --photo may be",
        ),
        ("video", "run --label s3://b/l", "^--label s3://b/l: hdgan needs a path of this machine there$"),
    ],
)
def test_other_paths_are_those_of_this_machine(command: str, typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_urls(command, typed.split())


@pytest.mark.parametrize(
    "url", ["https://me:hush@host/x", "s3://hush@b/x", "https://host/x?sig=hush", "ftp://a:hush@b"]
)
def test_credentials_are_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="needs a path of this machine") as caught:
        refuse_urls("video", ["run", "--label", url])
    assert "hush" not in str(caught.value)


def test_a_file_url_may_name_this_machine(dataset: Path, capsys: Capture) -> None:
    typed = ["file://localhost/a b", "--data.root=FILE://LocalHost/c", "--root", "simplecache::file://localhost", "x"]
    assert without_hosts(typed) == ["file:///a b", "--data.root=FILE:///c", "--root", "simplecache::file:///", "x"]
    unchanged = ["file:///a", "s3://localhost/a", "--out=file:/a", "localhost"]
    assert without_hosts(unchanged) == unchanged
    assert main(["data", "check", f"file://localhost{dataset}"]) == 0
    assert f"{dataset}: no faults" in capsys.readouterr().out


def test_a_file_url_of_another_machine_is_refused(capsys: Capture) -> None:
    for typed, start in (("", "file://nas/set"), ("--data_root=", "--data-root file://nas/set")):
        with pytest.raises(ConfigError, match=f"^{start} names the host nas, but a file URL is read on this machine: "):
            without_hosts([f"{typed}file://nas/set"])
    assert main(["data", "check", "file://me:hush@nas/set"]) == 2
    said = capsys.readouterr().err
    assert "file://nas/set names the host nas" in said
    assert "hush" not in said


def test_commands_ask(capsys: Capture, tmp_path: Path) -> None:
    for typed in ("train --out s3://b/run", "data pack set --out s3://b", "report s3://b/run"):
        assert main(typed.split()) == 2
        assert "hdgan needs a path of this machine there" in capsys.readouterr().err


def test_data_are_packed_and_checked_at_a_url(
    in_memory: Callable[[Path], Path], dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    url, out = str(in_memory(dataset)).replace(":/", "://"), tmp_path / "packed"
    assert main(["data", "check", url]) == 0
    assert f"{url}: no faults" in capsys.readouterr().out
    assert main(["data", "pack", url, "--out", str(out)]) == 0
    packed = str(in_memory(out)).replace(":/", "://")
    assert main(["data", "check", packed]) == 0
    assert f"{packed}: no faults" in capsys.readouterr().out
    assert main(["data", "pack", packed, "--out", str(tmp_path / "again")]) == 2
    assert f"{packed} is already packed" in capsys.readouterr().err


def test_images_are_generated_from_a_url(
    in_memory: Callable[[Path], Path], run: Path, dataset: Path, tmp_path: Path, capsys: Capture
) -> None:
    url = str(in_memory(dataset)).replace(":/", "://")
    for root, out in ((url, "a"), (dataset, "b")):
        sources = ("--label", f"{root}/test_label", "--instance", f"{root}/test_inst")
        assert main(["generate", str(run), *sources, "--out", str(tmp_path / out), "--device", "cpu"]) == 0
    images = sorted((tmp_path / "b").iterdir())
    assert len(images) == 2
    for image in images:
        assert (tmp_path / "a" / image.name).read_bytes() == image.read_bytes()
    capsys.readouterr()
    tiles = ("--label", f"{url}/test_label", "--instance", f"{url}/test_inst", "--max-memory", "4GB")
    assert main(["generate", str(run), *tiles, "--out", str(tmp_path / "c")]) == 2
    assert "is not on this machine, and tiles are read from local files" in capsys.readouterr().err
    assert main(["generate", str(run), "--label", f"{url}/no.png", "--out", str(tmp_path / "c")]) == 2
    assert f"--label {url}/no.png does not exist: check the path" in capsys.readouterr().err
