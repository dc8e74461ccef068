"""The verdict of a quick run: what counts as reached, missed and not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.benchmarks.quick import Planned, plan
from hdgan.benchmarks.rows import write
from hdgan.benchmarks.verdict import STEPS, Aim, Finished, aims_of_rows, aims_of_steps, page, read_steps, verdict
from tests.benchmarks.test_rows import ROW

PARTS = (
    Planned("avg_pyramid", "large", ("eager", "cuda"), ("NHWC",), ("forward", "backward")),
    Planned("G2", "frame", ("eager", "cuda"), ("NHWC",), ("forward",)),
    Planned("avg_pyramid", "large", ("compile",), ("NHWC",), ("forward",)),
)
OP = replace(ROW, benchmark="avg_pyramid", case="large", layout="NHWC", dtype="bfloat16", device="Abacus 9000")
FORWARD = replace(
    OP, implementation="cuda", direction="forward", median_ms=1.0, ceiling_percent=90.0, launch_ms=0.020,
    own_copy_gb_s=0.02, bytes=10**4,
)  # fmt: skip
BACKWARD = replace(FORWARD, direction="backward", ceiling_percent=86.0)
FRAME = replace(FORWARD, benchmark="G2", case="frame", ceiling_percent=40.0, launch_ms=9.0)
EAGER = [replace(row, implementation="eager", median_ms=2.0) for row in (FORWARD, BACKWARD, FRAME)]
COMPILED = replace(FORWARD, implementation="compile", median_ms=1.5)
ALL = [FORWARD, BACKWARD, FRAME, *EAGER, COMPILED]


def outcomes(measured: list) -> dict[str, Aim]:
    copy, eager, compiled, forward, both = aims_of_rows(measured, PARTS, "cuda")
    return {"copy": copy, "eager": eager, "compile": compiled, "launch": forward, "both": both}


def test_everything_is_reached() -> None:
    aims = outcomes(ALL)
    assert {name: aim.outcome for name, aim in aims.items()} == {
        "copy": "reached",
        "eager": "reached",
        "compile": "reached",
        "launch": "reached",
        "both": "not measured",  # no part asks for it
    }
    assert aims["copy"].detail == "2 of 2; worst 86 %: avg_pyramid, large, backward, NHWC"  # networks do not copy
    assert aims["eager"].detail.startswith("3 of 3; worst 2 x: ")
    assert aims["launch"].detail == "1 of 1; worst 20 µs: avg_pyramid, large, forward, NHWC"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("copy", BACKWARD, replace(BACKWARD, ceiling_percent=84.9)),
        ("eager", FRAME, replace(FRAME, median_ms=2.1)),
        ("compile", COMPILED, replace(COMPILED, median_ms=0.9)),
        ("launch", FORWARD, replace(FORWARD, launch_ms=0.031)),
    ],
)
def test_one_number_misses_an_aim(name: str, old: object, new: object) -> None:
    aims = outcomes([new if row is old else row for row in ALL])
    assert {found for found, aim in aims.items() if aim.outcome == "missed"} == {name}
    worst = new if new.implementation == "cuda" else FORWARD  # type: ignore[attr-defined]
    assert ", ".join((worst.benchmark, worst.case, worst.direction, worst.layout)) in aims[name].detail  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("absent", "unmeasured"),
    [(BACKWARD, {"copy", "eager"}), (COMPILED, {"compile"}), (EAGER[0], {"eager"}), (FRAME, {"eager"})],
)
def test_what_has_no_number_is_not_reached(absent: object, unmeasured: set[str]) -> None:
    aims = outcomes([row for row in ALL if row is not absent])
    assert {name for name, aim in aims.items() if aim.outcome == "not measured"} == unmeasured | {"both"}
    assert all("1 without a number" in aims[name].detail for name in unmeasured)


def test_a_number_that_misses_outweighs_those_that_are_absent() -> None:
    assert outcomes([replace(FORWARD, ceiling_percent=20.0)])["copy"].outcome == "missed"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("ok", "reached"),
        ("failed with status 1", "missed"),
        ("failed: torch finds no GPU", "missed"),
        ("out of time", "missed"),
        ("no time was left", "not measured"),
        ("compute-sanitizer is not installed", "not measured"),
    ],
)
def test_steps(status: str, outcome: str) -> None:
    aims = aims_of_steps([Finished("memcheck", status, "3"), Finished("wheels", "ok", "1")])
    by_name = dict(zip(STEPS, aims, strict=True))
    assert (by_name["memcheck"].outcome, by_name["memcheck"].detail) == (outcome, status)
    assert {aim.outcome for name, aim in by_name.items() if name != "memcheck"} == {"not measured"}
    assert by_name["build"].detail == "did not run"


def test_the_last_status_of_a_step_counts(tmp_path: Path) -> None:
    path = tmp_path / "steps.tsv"
    assert read_steps(path) == []
    path.write_text("build\tok\t20\ninfo\tok\t3\nbuild\tout of time\t9\n")
    assert read_steps(path) == [Finished("build", "out of time", "9"), Finished("info", "ok", "3")]


def test_the_page(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "abacus-9000.csv", [replace(row, cuda="13.0") for row in ALL])
    steps = tmp_path / "steps.tsv"
    steps.write_text("build\tok\t20\n")
    assert verdict(steps, tmp_path) == 0
    text = (tmp_path / "verdict.md").read_text(encoding="utf-8")
    assert text.startswith("# Verdict: Abacus 9000\n\n1 of 15 aims reached.\n")
    assert "hdgan 0.1.0+abc, PyTorch 2, CUDA 13.0" in text
    assert "| build | ok | 20 |" in text
    # 10 000 bytes in 1 ms are 0.01 GB/s, half of a copy of that size.
    assert "| avg_pyramid | large | forward | NHWC | cuda | 1 | 90 | 50 | 2.00 | 1.50 | 20 |  |" in text


def test_a_page_without_rows_reaches_nothing() -> None:
    text = page("no rows", [], [], plan("cuda"))
    assert "0 of 15 aims reached." in text
    assert "| reached |" not in text
