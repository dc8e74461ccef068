"""Rows that are in the folder of --docs are taken where they are comparable, and never lost."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hdgan.commands.main import main
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.reproduce import run as run_module
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.kept import KeptRows, find_kept, network_beside
from hdgan.reproduce.plan import NETWORKS, PERCEPTUAL, ROWS, SCORER
from hdgan.reproduce.record import load_record
from hdgan.reproduce.results import REAL, Requested, Result, load_requested, read_results, save_requested, write_rows
from tests.reproduce.calls import contents, network, run

ALL = {("pix2pixhd", 0), ("pix2pixhd", 1), ("gan", 0)}


@pytest.fixture
def file(folder: Folder, tmp_path: Path, result: Result, requested: Requested) -> Path:
    """The rows of two seeds of pix2pixHD and one of GAN, as another machine would leave them with its networks."""
    file = tmp_path / "docs" / "evidence" / "tiny.csv"
    file.parent.mkdir(parents=True)
    real = replace(result, row=REAL, seed=None, scorer=folder.digest(SCORER))
    jobs = [Job(folder, "pix2pixhd", 0), Job(folder, "pix2pixhd", 1), Job(folder, "gan", 0)]
    rows = [
        replace(real, row=job.name, seed=job.seed, config=job.digest_of_options, perceptual=job.perceptual)
        for job in jobs
    ]
    write_rows(file, [real, *rows])
    save_requested(file, replace(requested, rows=("pix2pixhd", "gan")))
    for name in NETWORKS:
        shutil.copyfile(folder.network(name), network_beside(file, name))
    return file


@pytest.fixture
def empty(folder: Folder, tmp_path: Path) -> Folder:
    """The folder of another machine, without anything."""
    return Folder(tmp_path / "elsewhere", folder.scale)


def test_comparable_rows_are_taken(file: Path, folder: Folder, empty: Folder) -> None:
    for where in (folder, empty):
        kept = find_kept(where, file)
        assert (kept.results.keys(), kept.others, kept.notes) == (ALL, (), ())
        assert kept.real is not None
    assert not empty.root.exists()
    assert kept.without([("gan", 0)]).results.keys() == ALL - {("gan", 0)}
    assert find_kept(folder, file.with_name("none.csv")) == KeptRows(file.with_name("none.csv"))


def edit(file: Path, **changes: object) -> None:
    write_rows(file, [replace(result, **changes) for result in read_results(file)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "taken", "note"),
    [
        (
            lambda file: edit(file, hdgan="0.0.1"),
            set(),
            r"^3 runs of .*tiny\.csv are not taken: scored by hdgan 0\.0\.1, not \d",
        ),
        (
            lambda file: edit(file, config="c0ffee"),
            set(),
            r"^3 runs of .* not taken: trained with other options than size tiny has in this version$",
        ),
        (
            lambda file: file.write_text(file.read_text().replace("tiny,gan,", "tiny,old,")),
            ALL - {("gan", 0)},
            r"^1 run of .*tiny\.csv is not taken: of rows that this version of hdgan does not know$",
        ),
        (
            lambda file: network_beside(file, SCORER).unlink(),
            set(),
            r"scored by the scorer [0-9a-f]{12}, not one that is trained first, since there is no tiny\.scorer\.safet",
        ),
        (
            lambda file: shutil.copyfile(network_beside(file, PERCEPTUAL), network_beside(file, SCORER)),
            set(),
            r"scored by the scorer [0-9a-f]{12}, not [0-9a-f]{12}$",
        ),
        (
            lambda file: network_beside(file, PERCEPTUAL).unlink(),
            {("gan", 0)},
            r"^2 runs of .* are not taken: trained with the perceptual network [0-9a-f]{12}, not one that is trained f",
        ),
        (
            lambda file: write_rows(file, read_results(file)[1:]),
            set(),
            r"^no rows are taken from there: .*tiny\.csv contains no row of real photos$",
        ),
        (lambda file: file.write_text("scale,row\n"), set(), r"^no rows are taken from there: .* not have the columns"),
        (lambda file: file.with_suffix(".json").unlink(), set(), r"^no rows are taken from there: .* does not exist"),
    ],
)
def test_others_are_not_and_it_is_said_why(
    file: Path, empty: Folder, change: Callable[[Path], object], taken: set[tuple[str, int]], note: str
) -> None:
    change(file)
    kept = find_kept(empty, file)
    assert kept.results.keys() == taken
    (line,) = kept.notes
    with pytest.raises(ConfigError, match=note):
        raise ConfigError(line)


def test_networks_that_a_folder_has_are_its_own(file: Path, folder: Folder) -> None:
    network(folder, SCORER, seed=7)
    kept = find_kept(folder, file)
    assert not kept.results
    before = folder.network(SCORER).read_bytes()
    kept.adopt_networks(folder, NETWORKS)
    assert folder.network(SCORER).read_bytes() == before


def test_a_damaged_network_is_named(file: Path, empty: Folder) -> None:
    beside = network_beside(file, SCORER)
    beside.write_bytes(beside.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"tiny\.scorer\.safetensors \(1000 bytes\) is not a readable"):
        find_kept(empty, file).adopt_networks(empty, NETWORKS)
    assert not empty.network(SCORER).exists()


def test_rows_that_are_not_comparable_are_lost_only_if_they_are_trained(file: Path, empty: Folder) -> None:
    edit(file, config="c0ffee")
    kept = find_kept(empty, file)
    kept.require_none_lost(ALL)
    says = r"contains 2 runs that this call would lose: pix2pixhd seed 1, gan seed 0: choose another docs, or more "
    with pytest.raises(
        ConfigError, match=says + r"seeds and rows; 3 runs of .* are not taken: trained with other options"
    ):
        kept.require_none_lost([("pix2pixhd", 0)])


def test_another_machine_goes_on_with_the_rows(folder: Folder, empty: Folder, tmp_path: Path, inline: None) -> None:
    docs, printed = tmp_path / "docs", io.StringIO()
    file = docs / "evidence" / "tiny.csv"
    assert run(folder, "crn", seeds=2, docs=docs).finished
    first = read_results(file)
    text = (docs / "evidence.md").read_text()
    assert "Rows of tiny that were not asked for (`--rows`): pix2pix, pix2pixHD, " in text
    assert "The last call took" not in text
    shutil.rmtree(folder.root)

    assert run(empty, "crn", "gan-fm", docs=docs, console=Console(file=printed, width=500)).finished
    assert f"1 of 2 runs are not trained again, since {file} has their rows" in printed.getvalue()
    assert not Job(empty, "crn", 0).run.exists()
    for name in NETWORKS:
        assert empty.network(name).read_bytes() == network_beside(file, name).read_bytes()
    rows = read_results(file)
    assert [(row.row, row.seed) for row in rows] == [(REAL, None), ("crn", 0), ("crn", 1), ("gan-fm", 0)]
    assert rows[1:3] == first[1:3]
    assert {row.scorer for row in rows} == {first[0].scorer}
    asked = load_requested(file)
    assert (asked.rows, asked.seeds, asked.taken) == (("crn", "gan-fm"), 1, 2)
    text = (docs / "evidence.md").read_text()
    assert "The last call took 2 rows of earlier ones, with the networks that trained and scored them" in text
    assert "Incomplete" not in text  # rows with more seeds than this call asked for ask nothing of others
    before = contents(docs)
    assert run(empty, "crn", docs=docs).finished
    assert before.keys() == contents(docs).keys()
    assert read_results(file) == rows


def test_rows_are_trained_again_if_asked_for(file: Path, empty: Folder, inline: None) -> None:
    before = read_results(file)
    docs, job = file.parents[1], Job(empty, "gan", 0)
    # The scores that were made up for these rows are not those of real photos here.
    with pytest.raises(DataError, match=r"the evaluation changed between runs: .*and give again if some"):
        run(empty, "gan", docs=docs, again=True)
    assert job.is_done()
    assert read_results(file) == before


def test_times_of_networks_go_along(file: Path, empty: Folder) -> None:
    find_kept(empty, file).adopt_networks(empty, NETWORKS)
    assert load_record(Job(empty, SCORER, 0).record) == load_requested(file).networks[SCORER]
    assert load_record(Job(empty, PERCEPTUAL, 1).record) is None


def test_nothing_begins_if_rows_would_be_lost(file: Path, empty: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(file, config="c0ffee")
    monkeypatch.setattr(run_module, "locked", None)
    with pytest.raises(ConfigError, match="contains 3 runs that this call would lose"):
        run(empty, "crn", docs=file.parents[1])
    assert not empty.root.exists()


@pytest.mark.parametrize(("rows", "says"), [(["crn", "cnr"], "cnr is no row of the tables"), ([], "is empty")])
def test_unknown_rows_are_refused_with_the_list(
    rows: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "--out", str(tmp_path / "out"), "--rows", *rows]) == 2
    known = ", ".join(ROWS)
    assert capsys.readouterr().err == f"hdgan: error: --rows {says}: give some of {known}\n"
    assert not (tmp_path / "out").exists()
