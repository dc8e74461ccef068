"""The plan of a quick run on a GPU, and its process on a CPU."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from hdgan.benchmarks import quick, rows, timing
from hdgan.benchmarks.cases import BENCHMARKS
from hdgan.benchmarks.quick import Planned, make_cases, plan
from hdgan.benchmarks.shapes import LARGE_NORM_CASES

CPU = torch.device("cpu")


@pytest.mark.parametrize("part", plan("cuda"), ids=lambda part: f"{part.benchmark}, {part.case}")
def test_what_is_planned_exists(part: Planned) -> None:
    benchmark = BENCHMARKS[part.benchmark]
    assert part.case in benchmark.cases
    assert set(part.implementations) <= set(benchmark.implementations)


def test_the_shapes_of_the_aims_are_planned() -> None:
    cases = [LARGE_NORM_CASES[part.case] for part in quick.OPS if part.benchmark == "instance_norm_act"]
    assert {case[:3] for case in cases} == {(32, 1024, 2048), (64, 512, 1024)}
    assert all(part.layouts == ("NCHW", "NHWC") for part in quick.OPS)


def test_the_baseline_is_measured_where_nhwc_alone_is_asked_for() -> None:
    parts = (
        Planned("G2", "small", ("eager", "cpu"), ("NHWC",), ("forward",)),
        Planned("G2", "small", ("cpu",), ("NHWC",)),
    )
    found = [(case.context.layout, case.context.implementations) for case in make_cases(parts, CPU)]
    assert found == [("NCHW", ("eager",)), ("NHWC", ("eager", "cpu")), ("NHWC", ("cpu",))]


def test_one_process_measures_and_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "copy_ceiling", lambda device, size=None: 1e9)
    monkeypatch.setattr(timing, "matmul_ceiling", lambda device, dtype: 1e9)
    monkeypatch.setattr(quick, "ROW_SECONDS", 1e-3)
    monkeypatch.setattr(quick, "REHEARSAL", (Planned("encode_labels", "1024x512", ("cpu",), ("NHWC",), ("forward",)),))
    assert quick.quick(tmp_path, device="cpu") == 0
    (path,) = (tmp_path / "rows").iterdir()
    (row,) = rows.read(path)
    assert (row.benchmark, row.implementation, row.dtype) == ("encode_labels", "cpu", "bfloat16")
    assert row.own_copy_gb_s == 1.0
    assert (row.clock, row.launch_ms) == ("", None)  # of a CPU
    assert json.loads(gzip.decompress((tmp_path / "step.json.gz").read_bytes()))["traceEvents"]
