"""Rows: keys, files, and what is refused."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hdgan.allocator import allocator_name
from hdgan.benchmarks.rows import (
    CHECKOUT,
    PUBLISHED,
    Measurement,
    _revision,
    device_name,
    merge,
    path_for,
    read,
    versions,
    write,
)
from hdgan.errors import DataError

ROW = Measurement(
    "benchmark", "case", "both", "cpu", "NCHW", "float32",
    median_ms=1.5, q20_ms=1.25, q80_ms=2.0, rounds=5, speedup=2.0, ceiling_percent=None, bound="copy", error=1e-7,
    tolerance=1e-5, bytes=10, flops=2**40, saved_bytes=None, peak_bytes=7, copy_gb_s=10.0, matmul_tflop_s=0.5,
    device="Abacus 9000 (R), 2 cores", threads=2, hdgan="0.1.0+abc", torch="2", triton="", cuda="", python="3.10",
    date="2026-01-02", allocator="glibc 3",
)  # fmt: skip


def test_a_newer_row_replaces_the_older_of_its_key_in_its_place() -> None:
    other, newer = replace(ROW, implementation="eager"), replace(ROW, median_ms=1.0, torch="3")
    assert merge([ROW, other], [newer]) == [newer, other]
    assert len(merge([ROW], [replace(ROW, **{name: "new"}) for name in ("case", "layout", "dtype")])) == 4


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.csv"
    other = replace(ROW, case='with "quotes", commas', speedup=None, ceiling_percent=50.0, saved_bytes=3)
    write(path, [ROW])
    write(path, [other, replace(ROW, rounds=9)])
    assert read(path) == [replace(ROW, rounds=9), other]


LATER = {"allocator": "", "clock": "", "launch_ms": None, "own_copy_gb_s": None}
"""Columns that rows of older versions lack, and what is read instead."""


@pytest.mark.parametrize("missing", range(1, len(LATER) + 1))
def test_rows_of_older_versions_lack_the_last_columns(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "rows.csv"
    row = replace(ROW, clock="kernels", launch_ms=0.03, own_copy_gb_s=9.5)
    write(path, [row])
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line.rsplit(',', missing)[0]}\n" for line in lines))
    other = replace(ROW, implementation="eager")
    write(path, [other])
    assert read(path) == [replace(row, **dict(list(LATER.items())[-missing:])), other]


def test_columns_keep_the_names_of_the_first_version(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", [ROW])
    heads = (tmp_path / "rows.csv").read_text().splitlines()[0].split(",")
    published = next((CHECKOUT / PUBLISHED).glob("*.csv"))
    older = published.read_text().splitlines()[0].split(",")
    assert heads[: len(older)] == older
    assert heads[len(older) :] == list(LATER)[len(LATER) - len(heads) + len(older) :]
    assert heads[:4] == ["work", "case", "direction", "contestant"]
    assert {row.implementation for row in read(published)} >= {"eager", "cpu"}


def test_a_key_that_failed_loses_its_old_row_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    other = replace(ROW, implementation="eager")
    write(path, [ROW, other])
    write(path, [], [ROW.key])
    assert read(path) == [other]
    write(path, [ROW], [ROW.key, other.key])
    assert read(path) == [ROW]


def test_a_file_of_other_columns_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"rows\.csv does not have the columns .*: move it away"):
        write(path, [ROW])
    assert path.read_text() == "a,b\n1,2\n"


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write(path, [ROW])
    path.write_text(path.read_text().replace("1.25", "quick"))
    with pytest.raises(DataError, match=r"rows\.csv, line 2: .*quick"):
        read(path)


def test_a_device_has_one_file() -> None:
    assert path_for(Path("results"), ROW.device) == Path("results/abacus-9000-r-2-cores.csv")
    assert "cores" in device_name(torch.device("cpu"))
    assert versions()["torch"] == torch.__version__
    assert versions()["allocator"] == allocator_name()


def test_the_revision_is_of_a_checkout_alone(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    names = ("setup.py", "README.md", "docs/page.md", "benchmarks/results/rows.csv", "packages/setup.py")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
        return subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    assert _revision(root) == ""  # no commit
    git("add", ".")
    git("commit", "-qm", "all")
    clean = f"+{git('rev-parse', '--short=9', 'HEAD').strip()}"
    assert _revision(root) == clean
    for name in names[1:4]:
        (root / name).write_text("measured")
    assert _revision(root) == clean
    (root / "setup.py").write_text("changed")
    assert _revision(root) == f"{clean}-dirty"
    assert _revision(root / "packages") == ""  # inside of a repository that is not its own
    (root / "setup.py").unlink()
    assert _revision(root) == ""
