"""The page says what the rows say, whichever way it falls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.cli import main
from hdgan.errors import DataError
from hdgan.reproduce.evidence import judge, page_text, write_evidence
from hdgan.reproduce.plan import TABLES
from hdgan.reproduce.results import Result, write_csv

MadeResults = Callable[[Mapping[str, list[float]]], list[Result]]
METHODS = next(table for table in TABLES if "crn" in table.rows)
FEATURES = next(table for table in TABLES if "features" in table.rows)


def test_an_order_that_holds(made: MadeResults) -> None:
    verdict = judge(METHODS, made({"pix2pix": [0.3, 0.4], "crn": [0.4, 0.5], "pix2pixhd": [0.5, 0.7]}))
    assert verdict is not None
    assert verdict.holds
    assert verdict.text == (
        "pix2pixHD > CRN > pix2pix in mean IoU **holds** over the mean of 2 seeds (pix2pixHD 0.600, CRN 0.450, "
        "pix2pix 0.350); the tested order is that of 2 of 2 seeds."
    )
    hd_crn = "pix2pixHD - CRN: +0.150 ± 0.071, above 0 in 2 of 2 seeds; one-sided paired t-test, p = 0.1."
    assert verdict.pairs == (hd_crn, "CRN - pix2pix: +0.100 ± 0.000, above 0 in 2 of 2 seeds.")


def test_an_order_that_does_not_hold_says_what_came_instead(made: MadeResults) -> None:
    verdict = judge(METHODS, made({"pix2pix": [0.5, 0.2], "crn": [0.6, 0.5], "pix2pixhd": [0.4, 0.6]}))
    assert verdict is not None
    assert not verdict.holds
    assert "**does not hold: CRN > pix2pixHD > pix2pix**" in verdict.text
    assert "that of 1 of 2 seeds" in verdict.text
    assert verdict.pairs[0].startswith(
        "pix2pixHD - CRN: -0.050 ± 0.212, above 0 in 1 of 2 seeds; one-sided paired t-test"
    )


def test_ties_do_not_hold_for_a_seed(made: MadeResults) -> None:
    verdict = judge(METHODS, made({"pix2pix": [0.3], "crn": [0.5], "pix2pixhd": [0.5]}))
    assert verdict is not None
    assert "that of 0 of 1 seed." in verdict.text
    assert not verdict.holds


def test_only_seeds_that_all_rows_have_are_compared(made: MadeResults) -> None:
    verdict = judge(METHODS, made({"pix2pix": [0.3], "crn": [0.4, 0.9], "pix2pixhd": [0.5, 0.1]}))
    assert verdict is not None
    assert verdict.holds
    assert "1 of 1 seed." in verdict.text
    assert judge(METHODS, made({"crn": [0.4], "pix2pixhd": [0.5]})) is None
    assert judge(FEATURES, made({"features": [0.4], "pix2pixhd": [0.5]})) is None


def test_the_summary_puts_what_came_out_otherwise_first(made: MadeResults, tmp_path: Path) -> None:
    scores = {"gan": [0.6, 0.5], "gan-fm": [0.4, 0.4], "one-d": [0.3, 0.2], "pix2pixhd": [0.5, 0.5]}
    text = page_text([made(scores)], tmp_path)
    otherwise, as_tested = text.index("**Did not come out as tested:**"), text.index("**Came out as tested:**")
    assert otherwise < text.index("- Losses: ") < as_tested < text.index("- Discriminators: ")


def test_tables_give_mean_and_spread_and_what_was_not_had(made: MadeResults, tmp_path: Path) -> None:
    text = page_text([made({"pix2pix": [0.3, 0.4], "pix2pixhd": [0.5, 0.5]})], tmp_path)
    assert "| pix2pix | 2 | 0.350 ± 0.071 | 20.25 ± 0.00 | 1.23 M | 62 |" in text
    assert "| real photos |  | 0.900 |  |  |  |" in text
    assert "Not had: lpips: no weights." in text
    assert "| model | seeds | mean IoU ↑ | PSNR, dB ↑ | parameters of G | s a run |" in text
    assert "| pix2pixHD | 0.25 ± 0.00 |" in text
    assert "CPU (2 cores), PyTorch 2.13.0" in text
    assert "### Discriminators" in text
    assert "### Losses" in text
    assert "`--loss.scorer`" in text.split("##")[0]
    assert "hardly finds" not in text
    assert ".png" not in text


def test_the_page_is_made_of_the_rows_alone_and_the_same_each_time(
    docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "evidence" / "tiny.png").touch()
    first = write_evidence(docs).read_bytes()
    assert b"](evidence/tiny.png)" in first
    assert main(["reproduce", "report", str(docs)]) == 0
    assert capsys.readouterr().out.strip() == str((docs / "evidence.md").resolve())
    assert (docs / "evidence.md").read_bytes() == first


def test_classes_that_the_scorer_does_not_know_are_named(made: MadeResults, tmp_path: Path) -> None:
    real, *runs = made({"crn": [0.4]})
    blind = replace(real, metrics=real.metrics | {"iou_car": 0.01, "iou_sky": 0.9})
    assert "hardly finds these classes even in real photos: car.\n" in page_text([[blind, *runs]], tmp_path)


def test_scales_follow_each_other(docs: Path, made: MadeResults) -> None:
    results = made({"crn": [0.4]})
    write_csv(docs / "evidence" / "other.csv", [*results])
    assert write_evidence(docs).read_text().count("\n## ") == 2


def test_without_rows_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"holds no rows \(\*\.csv\): run hdgan reproduce with --docs"):
        write_evidence(tmp_path)
    assert main(["reproduce", "report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "evidence.md").exists()
