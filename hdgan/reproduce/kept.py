"""Rows that earlier calls have left in the folder of --docs, perhaps on other machines, and that are not trained again.

A row is taken only if it was made as this call would make it: with the same options, by the same perceptual network
and scorer, and by this version of hdgan. A scorer that is trained again on another machine is another scorer. Therefore
the networks lie beside the rows, and a folder of runs that has none begins with those.

    DOCS/evidence/SIZE.csv                      the rows
    DOCS/evidence/SIZE/                         images of each row
    DOCS/evidence/SIZE.scorer.safetensors       the network that scored them
    DOCS/evidence/SIZE.perceptual.safetensors   the network of their perceptual loss, if it is a twin of the scorer
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from hdgan.config.options import option
from hdgan.errors import ConfigError, DataError
from hdgan.files import atomic_file
from hdgan.files.json import write_json
from hdgan.models.segmenter import load_segmenter
from hdgan.reproduce.jobs import Folder, Job
from hdgan.reproduce.plan import PERCEPTUAL, ROWS, SCORER
from hdgan.reproduce.record import Record, digest
from hdgan.reproduce.results import REAL, Result, load_requested, read_results
from hdgan.wording import count

Run = tuple[str, int]
"""Row and seed."""


@dataclass(frozen=True)
class KeptRows:
    """The rows of a CSV file that this call can take, and what is to be said of the others."""

    file: Path
    real: Result | None = None
    """The row of real photos; there is one if there are results."""
    results: Mapping[Run, Result] = field(default_factory=dict)
    others: tuple[Run, ...] = ()
    """Runs in the file that were made differently."""
    notes: tuple[str, ...] = ()
    """A line for each difference."""
    records: Mapping[str, Record | None] = field(default_factory=dict)
    """How long the training of the networks took."""

    def without(self, runs: Collection[Run]) -> KeptRows:
        """The same, but these runs are not taken."""
        return replace(self, results={run: result for run, result in self.results.items() if run not in runs})

    def require_none_lost(self, runs: Collection[Run]) -> None:
        """Make sure that the rows of these runs can replace the file. What this version cannot read may be lost.

        Raises:
            ConfigError: the file holds rows that would be neither taken nor trained.
        """
        lost = [f"{row} seed {seed}" for row, seed in self.others if (row, seed) not in runs]
        if lost:
            why = "".join(f"; {note}" for note in self.notes)
            raise ConfigError(
                f"{self.file} contains {count(len(lost), 'run')} that this call would lose: {', '.join(lost)[:200]}: "
                f"choose another {option('docs')}, or more {option('seeds')} and {option('rows')}{why}"
            )

    def networks_for(self, folder: Folder, names: Iterable[str]) -> dict[str, tuple[Path, Path]]:
        """The networks beside the rows that a folder of runs lacks, by name: their files, and where they belong."""
        if self.real is None:
            return {}
        places = {name: (network_beside(self.file, name), folder.network(name)) for name in names}
        return {name: place for name, place in places.items() if place[0].exists() and not place[1].exists()}

    def adopt_networks(self, folder: Folder, names: Iterable[str]) -> None:
        """Copy the networks beside the rows into a folder of runs that has none yet.

        Raises:
            CheckpointError: a file is damaged.
        """
        for name, (source, target) in self.networks_for(folder, names).items():
            load_segmenter(source)
            copy_network(source, target)
            if record := self.records.get(name):
                write_json(Job(folder, name, 0).record, record)


def find_kept(folder: Folder, file: Path) -> KeptRows:
    """The rows of a CSV file that need not be trained for this folder. Nothing is written.

    Args:
        folder: of the runs. Its networks count, and those beside the file if it has none.
        file: the CSV file of the scale, which need not exist.
    """
    if not file.exists():
        return KeptRows(file)
    try:
        found, records = read_results(file), load_requested(file).networks
        real = next((result for result in found if result.row == REAL), None)
        if real is None:
            raise DataError(f"{file} contains no row of real photos")
    except DataError as error:
        return KeptRows(file, notes=(f"no rows are taken from there: {error}",))
    networks = {name: _network(folder, file, name) for name in (SCORER, PERCEPTUAL)}
    results: dict[Run, Result] = {}
    others: dict[Run, str] = {}
    unknown = []
    for result in found:
        if result.row == REAL:
            continue
        if result.row not in ROWS or result.seed is None:
            unknown.append("of rows that this version of hdgan does not know")
        elif difference := _difference(result, Job(folder, result.row, result.seed), networks):
            others[result.row, result.seed] = difference
        else:
            results[result.row, result.seed] = result
    counted = Counter([*others.values(), *unknown]).items()
    notes = [f"{count(n, 'run')} of {file} {'is' if n == 1 else 'are'} not taken: {why}" for why, n in counted]
    return KeptRows(file, real, results, tuple(others), tuple(notes), records)


def network_beside(file: Path, name: str) -> Path:
    """Where a network is beside the CSV file of a scale."""
    return file.with_name(f"{file.stem}.{name}.safetensors")


def copy_network(source: Path, target: Path) -> None:
    """Copy the file of a network unless it is there already.

    Raises:
        HdganError: it cannot be written.
    """
    if not target.exists() or target.read_bytes() != source.read_bytes():
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


def _network(folder: Folder, file: Path, name: str) -> str:
    """The digest of the network that this call would work with, or words for one that it would train."""
    beside = network_beside(file, name)
    places = (folder.network(name), beside)
    missing = f"one that is trained first, since there is no {beside.name}"
    return next((digest(place.read_bytes()) for place in places if place.is_file()), missing)


def _difference(result: Result, job: Job, networks: Mapping[str, str]) -> str:
    """Why a row is not what this call would make; empty if it is."""
    given = job.folder.loss_network
    perceptual = networks[PERCEPTUAL] if given.is_twin else given.digest
    pairs = {
        "scored by hdgan": (result.hdgan, version("hdgan")),
        "scored by the scorer": (result.scorer, networks[SCORER]),
        "trained with the perceptual network": (result.perceptual, perceptual if job.compares_features else ""),
    }
    different = (f"{what} {theirs or 'none'}, not {ours}" for what, (theirs, ours) in pairs.items() if theirs != ours)
    other_options = f"trained with other options than size {job.folder.scale.name} has in this version"
    return next(different, other_options if result.config != job.digest_of_options else "")
