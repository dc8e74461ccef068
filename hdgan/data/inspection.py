"""Inspection of a dataset before training: every fault is reported with its remedy.

`quick_check` reads all headers and a few whole pairs, before training. `check_dataset` reads everything.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from typing import TypeVar

import numpy as np

from hdgan.config.options import option
from hdgan.data.agreement import require_same_pairs
from hdgan.data.class_file import CLASS_FILE, find_classes, require_number
from hdgan.data.config import DataConfig, PartName, Size
from hdgan.data.images import class_of
from hdgan.data.layouts import find_pairs, find_phases
from hdgan.data.pairs import Arrays, Listing, Pair, size_of
from hdgan.data.report import CheckReport, PhaseReport, Requirements
from hdgan.errors import ConfigError, DataError
from hdgan.files.remote import is_remote
from hdgan.sharding.cores import own_cores
from hdgan.sharding.world import ALONE, World

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of the task, the number of pairs done, and their total number."""
ROUND = 64
"""Pairs that each process reads before all exchange what they have found."""
_REMOTE_THREADS = 16
"""Threads that wait for a server, which take little of the cores."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Depth(Enum):
    """How much of each file is read."""

    HEADERS = "headers"
    EVERYTHING = "everything"


def silent(task: str, done: int, total: int) -> None:
    """Show no progress."""


def check_dataset(
    config: DataConfig,
    requirements: Requirements | int | None = None,
    phases: Sequence[str] | None = None,
    progress: ProgressCallback = silent,
    world: World = ALONE,
) -> CheckReport:
    """Read every file of a dataset and report what it contains and what is wrong.

    Args:
        config: `root`, `layout`, `train_phase`, `dontcare`, `instance_divisor`, `photo` and `photo_filter` are used.
        requirements: What the model and its training require; a number is their `n_labels`. None only counts labels.
        phases: Phases to check; None checks all.
        progress: Called with the phase, the number of pairs done, and their
            total.
        world: The processes that share the pairs. All of them call this, and have the same report.

    Raises:
        DataError: `root` is missing or has no known structure; what is wrong inside a phase goes into the report.
        ConfigError: the layout does not suit `n_labels`.
    """
    if not isinstance(requirements, Requirements):
        requirements = Requirements(requirements)
    labels = None if requirements.n_labels is None else requirements.n_labels > 0
    known = find_phases(config, labels)
    reports: list[PhaseReport] = []
    for phase in phases or known:
        try:
            listing = find_pairs(config, phase, labels)
        except DataError as error:
            # A fault of the folders as a whole would be the same for every phase: it is reported once.
            repeated = any(str(error) in report.faults for report in reports)
            reports.append(PhaseReport(phase, faults=[] if repeated else [str(error)]))
            continue
        report = inspect(listing, config, requirements.n_labels, Depth.EVERYTHING, progress, world)
        report.note_orphans()
        if phase == config.train_phase:
            _check_training(report, listing, config, requirements)
        reports.append(report)
    assert config.root is not None
    lacks_training = any(report.pairs for report in reports) and not phases and config.train_phase not in known
    absent = config.train_phase if lacks_training else ""
    classes, fault = None, ""
    if any(report.label_maps for report in reports):
        try:
            classes = find_classes(config.root)
            if classes is not None:
                require_number(config.root / CLASS_FILE, classes, requirements.n_labels)
        except DataError as error:
            fault = str(error)
    return CheckReport(config.root, tuple(reports), config.dontcare, requirements, absent, classes, fault)


def quick_check(
    listing: Listing,
    data: DataConfig,
    n_labels: int | None,
    *,
    full: int = 3,
    trained: bool = False,
    progress: ProgressCallback = silent,
    world: World = ALONE,
) -> PhaseReport:
    """Read size and mode of every file from its header, and decode a few pairs, spread over the dataset.

    Args:
        listing: From `find_pairs`.
        data: `dontcare` and `photo_filter` are used.
        n_labels: Number of classes; 0 for A-to-B; None accepts any label.
        full: Number of pairs that are decoded.
        trained: As of `Pair.check_labels`.
        progress: Called with "<phase> (headers)", pairs done and pairs in all.
        world: As of `check_dataset`.

    Raises:
        DataError: the first fault, how many more were seen, and the command that lists all.
    """
    report = inspect(listing, data, n_labels, Depth.HEADERS, progress, world)
    for index in sorted({round(i) for i in np.linspace(0, len(listing.pairs) - 1, max(1, full))}):
        pair = listing.pairs[index]
        with report.noting():
            pair.check_labels(pair.read().get("label"), n_labels, data.dontcare, trained=trained)
    faults = list(dict.fromkeys(report.faults))
    if faults:
        more = f"at least {len(faults) - 1} more: " if len(faults) > 1 else ""
        raise DataError(f"{faults[0]} ({more}list all with {_check_command(listing, data, n_labels)})")
    return report


def inspect(
    listing: Listing,
    config: DataConfig,
    n_labels: int | None,
    depth: Depth,
    progress: ProgressCallback,
    world: World = ALONE,
) -> PhaseReport:
    """Inspect the pairs of one phase.

    Args:
        listing: From `find_pairs`.
        config: `dontcare`, `instance_divisor` and `photo_filter` are used.
        n_labels: Number of classes; None accepts any label.
        depth: How much of each file is read.
        progress: Called with the phase, pairs done and pairs in all.
        world: As of `check_dataset`.
    """
    report = PhaseReport(
        listing.phase,
        listing.layout,
        len(listing.pairs),
        orphans=listing.orphans,
        photo=config.photo,
        photo_filter=config.photo_filter,
    )
    task = listing.phase if depth is Depth.EVERYTHING else f"{listing.phase} (headers)"
    require_same_pairs(world.rendezvous, listing.pairs, f"pair of {listing.phase}")
    look = partial(_inspect_pair, config=config, n_labels=n_labels, depth=depth)
    results = world.in_order(in_threads(look, world.share(listing.pairs)), len(listing.pairs), ROUND)
    for done, (pair, found) in enumerate(zip(listing.pairs, results, strict=True), start=1):
        report.add(pair, found)
        progress(task, done, len(listing.pairs))
    return report


def in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], threads: int | None = None
) -> Iterator[_Result]:
    """Map over items in their order. Reading and decoding release the interpreter's lock, so threads are enough."""
    first = getattr(items[0], "first_file", None) if items else None
    pool = ThreadPoolExecutor(threads or (_REMOTE_THREADS if is_remote(first) else min(8, own_cores())))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect_pair(pair: Pair, config: DataConfig, n_labels: int | None, depth: Depth) -> PhaseReport:
    """Read each file separately, so that one fault does not hide the next."""
    found = PhaseReport("")
    sizes: dict[PartName, Size] = {}
    arrays: Arrays = {}
    for file in pair.split():
        with found.noting():
            map_size = next(iter(sizes.values()), None)
            header = file.read_headers(map_size)
            stored = header.sizes
            if depth is Depth.EVERYTHING:
                file.verify()
                read = file.read(map_size=map_size)
                arrays |= {part: values for part, values in read.items() if part in ("label", "ids")}
                stored = {part: size_of(values) for part, values in read.items()}
                if pair.stored and "photo" in read and read["photo"].dtype == np.uint16:
                    found.peaks.append(int(read["photo"].max()))
            sizes |= stored
            source = next(iter(header.sizes.values()))
            found.channels.update(kind.channels for part, kind in header.kinds.items() if part == "input")
            found.inputs.update(kind.depth for part, kind in header.kinds.items() if part == "input")
            found.photos.update(kind for part, kind in header.kinds.items() if part == "photo")
            found.turned += [pair.photo] if header.turned and pair.photo else []
    if sizes:
        with found.noting():
            found.sizes[pair.common_size(sizes)] += 1
            found.examples[source] = pair
    _inspect_maps(found, pair, arrays, config, n_labels)
    return found


def _inspect_maps(found: PhaseReport, pair: Pair, maps: Arrays, config: DataConfig, n_labels: int | None) -> None:
    label, ids = maps.get("label"), maps.get("ids")
    if label is not None:
        values, counts = np.unique(label, return_counts=True)
        found.label_maps = 1
        found.class_pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        found.class_images.update(values.tolist())
        with found.noting():
            pair.check_labels(label, n_labels, config.dontcare)
    if ids is not None:
        different = np.unique(ids)
        found.ids.append(len(different))
        found.foreign += _foreign_ids(pair, different, n_labels, config) if n_labels else []
    if label is not None and ids is not None and label.shape == ids.shape:
        found.agreeing = int((class_of(ids, config.instance_divisor) == label).sum())
        found.compared = label.size


def _foreign_ids(pair: Pair, ids: np.ndarray, n_labels: int, config: DataConfig) -> list[str]:
    """A note on the first of different ids [n] whose class is neither a label nor dontcare, if there is one."""
    classes = class_of(ids, config.instance_divisor)
    foreign = (classes < 0) | (classes >= n_labels)
    if config.dontcare is not None:
        # Cityscapes gives pixels of no class the id -1, or their label: neither is an instance.
        foreign &= (classes != config.dontcare) & (ids != config.dontcare)
    if not foreign.any():
        return []
    first = int(foreign.argmax())
    return [
        f"{pair.ids} contains id {ids[first]} of class {classes[first]}, but {option('model.n_labels')} is "
        f"{n_labels}; set {option('data.instance_divisor')} to the divisor of the ids, if they encode a class"
    ]


def _check_training(report: PhaseReport, listing: Listing, config: DataConfig, requirements: Requirements) -> None:
    """Add to the faults of single files what training on this phase would reject."""
    first = listing.pairs[0]
    report.faults.extend(listing.lacks(config.root, requirements.instances))
    report.lacks_instances = first.label is not None and first.ids is None and not requirements.instances
    report.instead_of_instances = listing.instead_of("ids")
    if requirements.size is not None:
        try:
            report.require_size(requirements.size.training, requirements.batch_size)
        except (DataError, ConfigError) as error:
            report.faults.append(str(error))


def _check_command(listing: Listing, data: DataConfig, n_labels: int | None) -> str:
    """The command that lists every fault."""
    options = {
        "--layout": None if data.layout == "auto" else data.layout,
        "--phase": listing.phase,
        "--n-labels": n_labels,
        "--dontcare": data.dontcare,
        "--photo": None if data.photo == "rgb" else data.photo,
    }
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["hdgan data check", shlex.quote(str(data.root)), *given])
