"""Raw results survive their files; damaged files are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.config.serialization import to_plain
from hdgan.errors import CheckpointError, DataError
from hdgan.files.json import write_json
from hdgan.metrics.scores import METRICS
from hdgan.reproduce.results import (
    REAL,
    Requested,
    Result,
    load_requested,
    load_results,
    read_results,
    save_requested,
    write_rows,
)


def test_both_formats_give_back_what_they_took(tmp_path: Path, result: Result) -> None:
    unknown = {"began": "", "ended": "", "seconds": None, "cpu_seconds": None, "cores": None, "jobs": None}
    result = replace(result, metrics=dict.fromkeys(METRICS) | result.metrics)
    results = [replace(result, row=REAL, seed=None, notes="", **unknown), result]
    write_json(tmp_path / "result.json", results)
    write_rows(tmp_path / "rows.csv", results)
    assert load_results(tmp_path / "result.json", result.scorer) == results
    assert read_results(tmp_path / "rows.csv") == results


def test_metrics_of_all_rows_have_a_column(tmp_path: Path, result: Result) -> None:
    write_rows(tmp_path / "rows.csv", [result, replace(result, metrics={"fid": 3.5})])
    first, second = read_results(tmp_path / "rows.csv")
    assert first.metrics == result.metrics | {"fid": None}
    assert second.metrics == dict.fromkeys(result.metrics) | {"fid": 3.5}


def test_rows_of_before_there_was_a_choice_had_the_twin(tmp_path: Path, result: Result) -> None:
    rows = tmp_path / "rows.csv"
    write_rows(rows, [replace(result, network="vgg19"), replace(result, perceptual="")])
    network, none = (row.perceptual_network for row in read_results(rows))
    assert network is not None
    assert (network.name, network.digest) == ("vgg19", result.perceptual)
    assert none is None
    heads, line, _ = (text.split(",") for text in rows.read_text().splitlines())
    place = heads.index("network")
    rows.write_text("".join(",".join(cells[:place] + cells[place + 1 :]) + "\n" for cells in (heads, line)))
    (old,) = read_results(rows)
    assert old.perceptual_network is not None
    assert old.perceptual_network.is_twin


def test_a_metric_that_is_no_number_is_left_out(tmp_path: Path, result: Result) -> None:
    write_rows(tmp_path / "rows.csv", [replace(result, metrics={"psnr": float("nan")})])
    assert read_results(tmp_path / "rows.csv")[0].metrics == {"psnr": None}


def test_damage_is_named(tmp_path: Path, result: Result) -> None:
    rows = tmp_path / "rows.csv"
    write_rows(rows, [result])
    rows.write_text(rows.read_text().replace("pix2pixhd,0,32", "pix2pixhd,0,wide"))
    with pytest.raises(DataError, match=r"rows\.csv, line 2: .*'wide'.*restore the file from git"):
        read_results(rows)
    rows.write_text("model,score\n")
    with pytest.raises(DataError, match="does not have the columns"):
        read_results(rows)
    (tmp_path / "result.json").write_text('[{"scale"')
    with pytest.raises(CheckpointError, match=r"result\.json is damaged .*delete it to have the run scored again"):
        load_results(tmp_path / "result.json", result.scorer)


def test_results_of_another_judge_are_none(tmp_path: Path, result: Result) -> None:
    file = tmp_path / "result.json"
    assert load_results(file, result.scorer) == []
    write_json(file, [result])
    assert load_results(file, "another") == []
    write_json(file, [replace(result, hdgan="0.0.1")])
    assert load_results(file, result.scorer) == []
    file.write_text('[{"scale": "tiny", "seconds": 3.5}]')  # of before there were digests
    assert load_results(file, result.scorer) == []
    metrics = {name: 0.5 for name in METRICS if name != "instance_edges"}
    write_json(file, [replace(result, row=REAL, seed=None, metrics=metrics), replace(result, metrics=metrics)])
    assert load_results(file, result.scorer) == []


def test_what_was_wanted_lies_beside_the_rows(tmp_path: Path, requested: Requested) -> None:
    rows = tmp_path / "evidence" / "tiny.csv"
    save_requested(rows, requested)
    assert load_requested(rows) == requested
    assert requested.runs == [("pix2pix", 0), ("pix2pix", 1), ("pix2pixhd", 0), ("pix2pixhd", 1)]
    rows.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"tiny\.json does not exist: delete .*tiny\.csv, or write it again"):
        load_requested(rows)


def test_results_are_of_real_photos_and_a_run(tmp_path: Path, result: Result) -> None:
    file = tmp_path / "result.json"
    real = replace(result, row=REAL, seed=None)
    for results in ([result], [real, result, result], [result, real]):
        write_json(file, results)
        with pytest.raises(CheckpointError, match=r"result\.json is damaged \(not the scores of real photos and"):
            load_results(file, result.scorer)
    for content, says in (
        ("[1]", r"\[0\] is 1: give a table"),
        ("{}", "give a list"),
        ("[" * 5000, "nested too deeply"),
    ):
        file.write_text(content)
        with pytest.raises(CheckpointError, match=rf"result\.json.*{says}"):
            load_results(file, result.scorer)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2026-01-02T03:00:00+00:00", "yesterday", "began is 'yesterday': give a time such as"),
        ("2026-01-02T03:10:00+00:00", "2026-01-02", "ended is '2026-01-02': give a time such as"),
        ("20.25", "nan", r"metrics\.psnr is nan: give a number"),
        ("20.25", "1e300", r"metrics\.psnr is 1e\+300: give a number"),
        ("450.5", "-1", r"cpu_seconds is -1\.0: give a number from 0"),
        ("tiny,", "../../tiny,", r"scale is '\.\./\.\./tiny'"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path: Path, result: Result, old: str, new: str, says: str) -> None:
    rows = tmp_path / "rows.csv"
    write_rows(rows, [result])
    assert old in rows.read_text()
    rows.write_text(rows.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"rows\.csv, line 2: .*{says}.*; restore the file from git$"):
        read_results(rows)


def test_what_was_wanted_is_bounded(tmp_path: Path, requested: Requested) -> None:
    rows = tmp_path / "tiny.csv"
    for wrong, says in (
        ({"seeds": 10**9}, "seeds is 1000000000"),
        ({"rows": ("crn", "crn")}, "rows contains a name twice"),
    ):
        content = to_plain(requested) | wrong
        rows.with_suffix(".json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"tiny\.json: {says}"):
            load_requested(rows)
