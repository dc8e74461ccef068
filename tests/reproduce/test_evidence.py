"""The page says what the rows say, whichever way it falls, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hdgan.commands.main import main
from hdgan.errors import DataError
from hdgan.reproduce.conditions import Measured, conditions
from hdgan.reproduce.evidence import page_text, write_evidence
from hdgan.reproduce.results import REAL, Requested, Result, load_requested, save_requested, write_rows

MadeResults = Callable[[Mapping[str, list[float]]], list[Result]]


@pytest.fixture
def page(made: MadeResults, requested: Requested, tmp_path: Path) -> Callable[[Mapping[str, list[float]]], str]:
    """The page of rows by their mean IoU, all of which were requested."""

    def text(scores: Mapping[str, list[float]]) -> str:
        asked = replace(requested, rows=tuple(scores), seeds=max(map(len, scores.values())))
        return page_text([Measured(made(scores), asked)], tmp_path)

    return text


Page = Callable[[Mapping[str, list[float]]], str]


def test_the_summary_puts_what_is_not_as_in_the_paper_first(page: Page) -> None:
    text = page(
        {
            "pix2pixhd": [0.5, 0.51, 0.53],
            "gan": [0.6, 0.62, 0.61],
            "gan-fm": [0.5, 0.52, 0.53],
            "one-d": [0.3, 0.32, 0.31],
            "g1": [0.2, 0.22, 0.21],
        }
    )
    headings = ["Not as in the paper", "In the paper, not decided here", "As in the paper", "Tested additionally"]
    summary = text[: text.index("### ")]
    *starts, end = [summary.index(f"**{heading}") for heading in headings] + [len(summary)]
    groups = [summary[start:stop] for start, stop in zip(starts, [*starts[1:], end], strict=True)]
    assert starts == sorted(starts)
    expected = [
        ["- Losses: pix2pixHD > GAN: **reversed**"],
        ["- Losses: pix2pixHD > GAN + feature matching: **not decided by 3 seeds**"],
        ["- Discriminators: pix2pixHD > one discriminator: **supported**"],
        ["- Losses: GAN + feature matching > GAN: **reversed**", "- Generator: pix2pixHD > G1 alone: **supported**"],
    ]
    for group, lines in zip(groups, expected, strict=True):
        assert group.count("\n- ") == len(lines)
        assert all(line in group for line in lines)


def test_crn_above_pix2pix_is_no_agreement_with_the_paper(page: Page) -> None:
    text = page({"pix2pix": [0.3, 0.31, 0.32], "crn": [0.4, 0.42, 0.41], "pix2pixhd": [0.5, 0.51, 0.53]})
    ours = text[text.index("**Tested additionally, by us; not said by the paper:**") : text.index("### ")]
    assert "- pix2pix, CRN and pix2pixHD: CRN > pix2pix: **supported**" in ours
    assert "Tested: pix2pixHD > CRN > pix2pix in mean IoU: **supported**" in text
    assert text.count("(not in the paper).") == 1
    assert "differs from the scorer only in its seed, which favours the rows with this loss: CRN" in text
    assert "p is\n  not corrected for the number of comparisons, which is 10 for each scale" in text


def test_tables_give_mean_and_spread_and_what_was_not_had(page: Page) -> None:
    text = page({"pix2pix": [0.3, 0.4], "pix2pixhd": [0.5, 0.5]})
    assert "| pix2pix | 2 | 0.350 ± 0.071 | 20.25 ± 0.00 | 1.23 M | 450 ± 0 |" in text
    assert "| real photos |  | 0.900 |  |  |  |" in text
    assert "Not available: lpips: no weights." in text
    assert "Not measured, since hdgan did not have them when these runs were scored: pixel accuracy, SSIM, " in text
    assert "| model | seeds | mean IoU ↑ | PSNR, dB ↑ | parameters of G | CPU s per run |" in text
    assert "| pix2pixHD | 0.25 ± 0.00 |" in text
    assert "CPU (2 cores), jobs side by side: 2, threads of each: 1; scored by PyTorch 2.13.0" in text
    assert "a covariance of 62 features from 2 images" in text
    assert "a small segmentation network that was trained on the training scenes (`--loss.network`)" in text
    assert "hardly finds" not in text
    assert ".png" not in text


def test_the_twin_is_a_caveat_only_where_it_was_used(
    made: MadeResults, requested: Requested, tmp_path: Path, page: Page
) -> None:
    scores = {"gan": [0.3], "pix2pixhd": [0.5]}
    assert page(scores).count("only in its seed") == 2
    results = [replace(result, network="timm:resnet50") for result in made(scores)]
    text = page_text([Measured(results, replace(requested, rows=tuple(scores), seeds=1))], tmp_path)
    assert "only in its seed" not in text
    assert "compares the features of `timm:resnet50` (SHA-256 beef…, `--network`)" in text
    none = [replace(result, perceptual="") for result in made({"gan": [0.3], "gan-fm": [0.4]})]
    assert "he perceptual loss " not in conditions(Measured(none, requested))


def test_what_older_rows_lack_is_not_said_of_them(page: Page, made: MadeResults, requested: Requested) -> None:
    scores = {"gan": [0.3], "pix2pixhd": [0.5]}
    assert not any(word in page(scores) for word in ("noise", "vgg-layers", "bfloat16"))
    newer = replace(requested, precision="bfloat16", noise=0.3, feature_weights=(1.0, 0.5, 0.25))
    text = conditions(Measured(made(scores), newer))
    assert "have noise (`--model.generator.noise 0.3`)" in text
    assert "fine to coarse, by 1, 0.5, 0.25 (`--loss.vgg-layers`)" in text
    assert "All rows were trained in bfloat16 and scored in float32." in text


def test_sections_with_fewer_than_two_rows_are_left_out(page: Page) -> None:
    text = page({"gan": [0.3, 0.4], "gan-fm": [0.5, 0.5]})
    assert "### Losses" in text
    assert not any(f"### {title}" in text for title in ("Discriminators", "Features", "pix2pix, CRN"))


def test_time_is_that_of_all_jobs(made: MadeResults, requested: Requested, tmp_path: Path) -> None:
    results = made({"pix2pix": [0.3], "pix2pixhd": [0.5]})
    results[-1] = replace(results[-1], ended="2026-01-02T03:20:00+00:00", seconds=1200.0, cpu_seconds=899.5)
    text = page_text([Measured(results, requested)], tmp_path)
    assert "3 of 4 jobs" in text
    assert "together 0.58 hours, with 0.46 hours of CPU time" in text
    assert "; 30 minutes from the start" in text
    none = [replace(one, began="", ended="", seconds=None, cpu_seconds=None, cores=None, device="") for one in results]
    text = page_text([Measured(none, replace(requested, networks={"scorer": None}))], tmp_path)
    assert "Measured on an unknown device; scored by" in text
    assert "The time was not recorded." in text


def test_what_is_missing_is_said_first(docs: Path, made: MadeResults, requested: Requested) -> None:
    file = docs / "evidence" / "tiny.csv"
    assert "Incomplete" not in write_evidence(docs).read_text()
    save_requested(file, replace(requested, rows=("pix2pix", "crn", "pix2pixhd"), seeds=3))
    lines = write_evidence(docs).read_text().splitlines()
    missing = "pix2pix seed 2; CRN seed 0, 1, 2; pix2pixHD seed 2"
    assert lines[2] == f"**Incomplete: 4 of 9 runs of tiny; missing: {missing}.**"


def test_the_page_is_made_of_the_rows_and_the_same_each_time(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_evidence(docs).read_bytes()
    assert main(["reproduce", "report", str(docs)]) == 0
    assert capsys.readouterr().out.strip() == str((docs / "evidence.md").resolve())
    assert (docs / "evidence.md").read_bytes() == first


def test_each_row_shows_the_strip_of_its_lowest_seed(docs: Path) -> None:
    strips = docs / "evidence" / "tiny"
    strips.mkdir()
    assert "what each model makes" not in write_evidence(docs).read_text()
    for name in ("label", "real", "pix2pix-0", "pix2pix-1", "pix2pixhd-1", "pix2pixhd-2", "gan-0"):
        (strips / f"{name}.png").touch()
    text = write_evidence(docs).read_text()
    assert re.findall(r"!\[(.*)\]\(evidence/tiny/(.*)\.png\)", text) == [
        ("Label maps", "label"),
        ("Real photos", "real"),
        ("pix2pix, seed 0", "pix2pix-0"),
        ("pix2pixHD, seed 1", "pix2pixhd-1"),
    ]


def test_remarks_follow_the_findings(docs: Path) -> None:
    without = write_evidence(docs).read_text()
    (docs / "evidence" / "tiny.txt").write_text("**Why?** Because.\n")
    page = write_evidence(docs).read_text()
    assert page.replace("**Why?** Because.\n\n", "") == without
    assert page.index("\n## tiny") < page.index("**Why?**") < page.index("\n### ")
    (docs / "evidence" / "tiny.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"tiny\.txt is not UTF-8 at byte 0: save it as UTF-8"):
        write_evidence(docs)
    assert (docs / "evidence.md").read_text() == page


def test_a_chart_shows_the_scores_that_there_are(docs: Path) -> None:
    page, chart = write_evidence(docs).read_text(), (docs / "evidence" / "tiny.svg").read_text()
    assert "](evidence/tiny.svg)" in page
    assert {name for name in ("mean IoU", "pix2pixHD", "pattern", "CRN") if name in chart} == {"mean IoU", "pix2pixHD"}
    write_evidence(docs)
    assert (docs / "evidence" / "tiny.svg").read_text() == chart


def test_classes_that_the_scorer_does_not_know_are_named(
    made: MadeResults, requested: Requested, tmp_path: Path
) -> None:
    real, *runs = made({"crn": [0.4]})
    assert real.row == REAL
    blind = replace(real, metrics=real.metrics | {"iou_car": 0.01, "iou_sky": 0.9, "iou_person": None})
    text = page_text([Measured([*runs, blind], requested)], tmp_path)
    assert "hardly finds these classes even in real photos: car.\n" in text
    assert "| IoU | car | sky | person |" in text


def test_scales_follow_each_other_after_what_all_of_them_say(
    docs: Path, made: MadeResults, requested: Requested
) -> None:
    other = docs / "evidence" / "other.csv"
    rows = made({"crn": [0.4, 0.5], "pix2pix": [0.3, 0.3], "pix2pixhd": [0.6, 0.4]})
    write_rows(other, [replace(row, scale="other") for row in rows])
    save_requested(other, requested)
    lines = write_evidence(docs).read_text().splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    assert [heading.split(":")[0] for heading in headings] == ["## All scales", "## other", "## tiny"]
    cells = [line.split(" | ")[:3] for line in lines if line.startswith("| pix2pixHD > CRN | yes |")]
    assert cells == [["| pix2pixHD > CRN", "yes", "not decided, +0.050, 2 seeds"]]
    assert any(line.startswith("| CRN > pix2pix | no | not decided, +0.150, 2 seeds |") for line in lines)


def test_without_rows_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"contains no rows \(\*\.csv\): run `hdgan reproduce --docs"):
        write_evidence(tmp_path)
    assert main(["reproduce", "report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "evidence.md").exists()


def cut_to_header(file: Path) -> None:
    file.write_text(file.read_text().splitlines()[0] + "\n")


def keep_real_photos(file: Path) -> None:
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")


def cut_a_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], lines[3].rsplit(",", 2)[0], *lines[4:]]) + "\n")


def lengthen_a_line(file: Path) -> None:
    file.write_text(file.read_text().rstrip("\n") + ",7\n")


def name_an_unknown_row(file: Path) -> None:
    file.write_text(file.read_text().replace(",pix2pixhd,", ",old-row,"))


def want_an_unknown_row(file: Path) -> None:
    save_requested(file, replace(load_requested(file), rows=("pix2pix", "old-row")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_to_header, r"tiny\.csv contains no runs: restore it from git, or delete "),
        (keep_real_photos, r"tiny\.csv contains no run"),
        (cut_a_line, r"tiny\.csv, line 4: the number of fields is not that of the columns; restore the file from git"),
        (lengthen_a_line, r"tiny\.csv, line \d: the number of fields is not that of the columns"),
        (
            name_an_unknown_row,
            r"tiny\.csv, or the JSON file .* contains rows that this version of hdgan does not know: old-row; delete ",
        ),
        (want_an_unknown_row, r"contains rows that this version of hdgan does not know: old-row"),
    ],
)
def test_damaged_rows_leave_the_page_as_it_was(docs: Path, damage: Callable[[Path], None], message: str) -> None:
    before = write_evidence(docs).read_bytes()
    damage(docs / "evidence" / "tiny.csv")
    with pytest.raises(DataError, match=message):
        write_evidence(docs)
    assert (docs / "evidence.md").read_bytes() == before


def test_rows_of_another_version_name_the_remedy(docs: Path) -> None:
    stale = docs / "evidence" / "small.csv"
    stale.write_text("scale,row,score\n")
    again = rf"write it again with hdgan reproduce --size small --docs {docs}$"
    remedy = rf"does not have the columns .*: delete {stale}, or {again}"
    with pytest.raises(DataError, match=remedy):
        write_evidence(docs)
