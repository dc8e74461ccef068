"""Raw results survive their files; damaged files are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.errors import CheckpointError, DataError
from hdgan.reproduce.results import REAL, Result, load_results, read_csv, save_results, write_csv


def test_both_formats_give_back_what_they_took(tmp_path: Path, result: Result) -> None:
    results = [replace(result, row=REAL, seed=None, notes=""), result]
    save_results(tmp_path / "result.json", results)
    write_csv(tmp_path / "rows.csv", results)
    assert load_results(tmp_path / "result.json") == results
    assert read_csv(tmp_path / "rows.csv") == results


def test_metrics_of_all_rows_have_a_column(tmp_path: Path, result: Result) -> None:
    write_csv(tmp_path / "rows.csv", [result, replace(result, metrics={"fid": 3.5})])
    first, second = read_csv(tmp_path / "rows.csv")
    assert first.metrics == result.metrics | {"fid": None}
    assert second.metrics == dict.fromkeys(result.metrics) | {"fid": 3.5}


def test_a_metric_that_is_no_number_is_left_out(tmp_path: Path, result: Result) -> None:
    write_csv(tmp_path / "rows.csv", [replace(result, metrics={"psnr": float("nan")})])
    assert read_csv(tmp_path / "rows.csv")[0].metrics == {"psnr": None}


def test_damage_is_named(tmp_path: Path, result: Result) -> None:
    rows = tmp_path / "rows.csv"
    write_csv(rows, [result])
    rows.write_text(rows.read_text().replace("pix2pixhd,0,32", "pix2pixhd,0,wide"))
    with pytest.raises(DataError, match=r"rows\.csv, line 2: .*'wide'.*restore the file from git"):
        read_csv(rows)
    rows.write_text("model,score\n")
    with pytest.raises(DataError, match="other columns"):
        read_csv(rows)
    (tmp_path / "result.json").write_text('[{"scale"')
    with pytest.raises(CheckpointError, match=r"result\.json is damaged .*delete it to have the run scored again"):
        load_results(tmp_path / "result.json")
