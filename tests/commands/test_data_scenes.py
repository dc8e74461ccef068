"""`hdgan data scenes`: a dataset that the other commands take."""

from __future__ import annotations

import pytest

from hdgan.commands.main import main
from hdgan.data.config import ScenesConfig
from hdgan.errors import HdganError
from hdgan.scenes import ensure_scenes, write_scenes

SMALL = ["--width", "48", "--height", "24", "--train", "2", "--test", "1", "--seed", "7"]


def test_the_folder_is_that_of_the_built_in_scenes(tmp_path, capsys) -> None:
    out = tmp_path / "of mine" / "streets"
    assert main(["data", "scenes", str(out), *SMALL]) == 0
    assert "2 training and 1 held-out scenes of 9 classes" in capsys.readouterr().err
    cached = ensure_scenes(ScenesConfig(width=48, height=24, train=2, test=1, seed=7), tmp_path / "cache")
    files = sorted(file.relative_to(cached) for file in cached.rglob("*") if file.is_file())
    assert sorted(file.relative_to(out) for file in out.rglob("*") if file.is_file()) == files
    assert [file for file in files if (out / file).read_bytes() != (cached / file).read_bytes()] == []
    assert main(["data", "check", str(out), "--n-labels", "9", "--instances"]) == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["there", *SMALL], "there already exists: give the name of a new folder, or delete it"),
        (["new", "--width", "3"], "--width is 3"),
        (["new", "--train", "0"], "--train is 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(typed, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert main(["data", "scenes", *typed]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_interrupted_folder_does_not_appear(tmp_path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(ScenesConfig(width=48, height=24, train=2, test=1), tmp_path / "streets", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HdganError, match=r"cannot write the scenes into .*; free space or choose another folder"):
        write_scenes(ScenesConfig(width=48, height=24, train=1, test=1), tmp_path / "file" / "streets")
