"""Tables and plots from rows, between markers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.benchmarks.report import BEGIN, END, details, headlines, summary
from hdgan.benchmarks.rows import CHECKOUT, Measurement, folder_for, write
from hdgan.commands.main import main
from hdgan.errors import ConfigError

EAGER = Measurement(
    "instance_norm_act", "G1 | stem", "both", "eager", "NCHW", "float32",
    median_ms=10.0, q20_ms=9.0, q80_ms=12.0, rounds=5, speedup=1.0, ceiling_percent=25.0, bound="copy", error=0.0,
    tolerance=1e-5, bytes=10**7, flops=10**6, saved_bytes=4 * 10**6, peak_bytes=None, copy_gb_s=10.0,
    matmul_tflop_s=0.5, device="Abacus 9000", threads=2, hdgan="0.1.0", torch="2.0", triton="", cuda="",
    python="3.10", date="2026-01-02",
)  # fmt: skip
OURS = replace(EAGER, implementation="cpu", layout="NHWC", median_ms=4.0, speedup=2.5, saved_bytes=2 * 10**6)
DTYPES = ("float32", "bfloat16")
COMPILED = replace(EAGER, implementation="compile", median_ms=8.0, speedup=1.25)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout without rows."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for page in ("README.md", "docs/benchmarks.md"):
        (tmp_path / page).write_text(f"before\n\n{BEGIN}\n{END}\n\nafter\n", encoding="utf-8")
    return tmp_path


def pages(root: Path) -> list[str]:
    return [(root / page).read_text(encoding="utf-8") for page in ("README.md", "docs/benchmarks.md")]


def test_without_results(root: Path) -> None:
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    for text in pages(root):
        assert "No results yet" in text
        assert text.startswith("before\n")
        assert text.endswith("after\n")
    assert not list(root.rglob("*.svg"))


def test_a_report_of_a_cpu_names_the_allocator(root: Path) -> None:
    results = root / "benchmarks" / "results"
    write(results / "abacus-9000.csv", [replace(EAGER, allocator="glibc 3, freed memory kept")])
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    assert "PyTorch 2.0 on 2 threads, glibc 3, freed memory kept, hdgan 0.1.0, 2026-01-02" in pages(root)[1]
    write(results / "abacus-9000.csv", [EAGER])
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    assert "PyTorch 2.0 on 2 threads, hdgan 0.1.0, 2026-01-02" in pages(root)[1]


def test_a_report_names_every_allocator_of_its_rows(root: Path) -> None:
    results = root / "benchmarks" / "results"
    older = replace(EAGER, case="older", allocator="", hdgan="0.1", date="2026-01-01")
    newer = replace(EAGER, allocator="glibc 3", hdgan="0.2", date="2026-02-02")
    write(results / "abacus-9000.csv", [older, newer])
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    text = pages(root)[0]
    assert "glibc 3, hdgan 0.2, 2026-02-02; other rows by PyTorch" in text
    assert "hdgan 0.1, 2026-01-01:" in text


def test_a_report_is_written_once_however_often(root: Path) -> None:
    write(root / "benchmarks" / "results" / "abacus-9000.csv", [EAGER, OURS, COMPILED])
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    first, plots = pages(root), {path: path.read_bytes() for path in root.rglob("*.svg")}
    assert len(plots) == 2
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 0
    assert pages(root) == first
    assert {path: path.read_bytes() for path in root.rglob("*.svg")} == plots
    for plot in plots:
        assert f"]({plot.relative_to(root / 'docs').as_posix()})" in first[1]


def test_what_stands_in_the_tables() -> None:
    rows = [EAGER, OURS, COMPILED, replace(OURS, case="small", median_ms=0.1)]
    short = summary([rows])
    cells = ["instance_norm_act", "G1 \\| stem, both, float32", "10", "4 (cpu NHWC)", "2.50x", "1.25x (NCHW)"]
    assert f"| {' | '.join(cells)} | 25 % copy |" in short
    assert "small" not in short
    long = details([rows])
    assert "10 (9-12), 1.00x, 25 %" in long
    assert "| 4.0 |" in long
    assert "copy 10 GB/s; matmul 0.5 TFLOP/s in float32" in long


def test_the_short_table_has_a_line_for_each_benchmark() -> None:
    half = replace(OURS, dtype="bfloat16", median_ms=3.0)
    rows = [EAGER, OURS, COMPILED, half, replace(OURS, direction="forward"), replace(OURS, benchmark="step")]
    text = headlines([rows])
    cells = ["instance_norm_act", "G1 \\| stem, both, float32", "10", "4 (cpu NHWC)", "2.50x", "1.25x (NCHW)", ""]
    lines = [line for line in text.splitlines() if line.startswith("| instance") or line.startswith("| step")]
    assert [line.split(" | ")[0] for line in lines] == ["| instance_norm_act", "| step"]
    assert lines[0] == f"| {' | '.join(cells)} |"


def test_the_short_table_prefers_gpus() -> None:
    gpu = [replace(row, device="H 9000", cuda="13.0", dtype=dtype) for row in (EAGER, OURS) for dtype in DTYPES]
    text = headlines([[EAGER, OURS], gpu])
    assert "H 9000" in text
    assert "Abacus" not in text
    assert "both, bfloat16" in text


@pytest.mark.parametrize("text", ["no markers", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_page_without_markers_is_left_alone(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "docs" / "benchmarks.md").write_text(text)
    before = pages(root)
    assert main(["bench", "report", "--publish", "--root", str(root)]) == 2
    assert "benchmarks.md: expected one line" in capsys.readouterr().err
    assert pages(root) == before


def test_a_folder_that_is_no_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", "--publish", "--root", str(tmp_path)]) == 2
    assert "--publish needs a checkout of hdgan" in capsys.readouterr().err
    assert main(["bench", "report", "--root", str(tmp_path)]) == 2
    assert "gives the checkout for --publish" in capsys.readouterr().err


def test_rows_of_a_user_have_a_page_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "report"]) == 2
    assert "hdgan-bench contains no rows: run `hdgan bench` first" in capsys.readouterr().err
    write(tmp_path / "hdgan-bench" / "abacus-9000.csv", [EAGER, OURS, COMPILED])
    assert main(["bench", "report"]) == 0
    page = (tmp_path / "hdgan-bench" / "benchmarks.md").read_text(encoding="utf-8")
    assert "1.25x" in page
    plots = list((tmp_path / "hdgan-bench").rglob("*.svg"))
    assert plots
    assert all(f"]({plot.relative_to(tmp_path / 'hdgan-bench').as_posix()})" in page for plot in plots)


def test_published_rows_change_only_by_an_option(tmp_path: Path) -> None:
    assert folder_for(None, publish=False) == Path("hdgan-bench")
    assert folder_for(tmp_path, publish=False) == tmp_path
    assert folder_for(None, publish=True) == CHECKOUT / "benchmarks" / "results"
    with pytest.raises(ConfigError, match="give only one of them"):
        folder_for(tmp_path, publish=True)
