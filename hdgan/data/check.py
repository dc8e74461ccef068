"""Checking a dataset before a run is spent on it: every file opened, every fault named with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from hdgan.config.bounds import Labels
from hdgan.config.options import option, typed_as
from hdgan.config.serialization import check_value
from hdgan.data.check_report import CheckReport, Found, PhaseReport, Wanted, print_report
from hdgan.data.config import DataConfig, LayoutName, SizeConfig
from hdgan.data.dataset import check_labels, check_sizes, read_pair
from hdgan.data.headers import read_header, verify_checksums
from hdgan.data.images import (
    class_of,
    read_input,
    read_map,
    read_photo,
)
from hdgan.data.layouts import Listing, Pair, find_pairs, find_phases
from hdgan.data.packed import verify
from hdgan.data.packed_index import PackedSample
from hdgan.data.quick_check import in_threads, is_turned, require_size
from hdgan.errors import ConfigError, DataError
from hdgan.progress import showing_progress

_TYPED = {
    "data.root": "ROOT",
    "data.layout": "--layout",
    "data.dontcare": "--dontcare",
    "data.instance_divisor": "--instance-divisor",
    "model.n_labels": "--n-labels",
    "stages.STAGE.batch_size": "--batch-size",
    **{f"stages.STAGE.size.{name}": f"--size.{name.replace('_', '-')}" for name in vars(SizeConfig())},
}


def check_dataset(
    config: DataConfig,
    wanted: Wanted | int | None = None,
    phases: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Open every file of a dataset and report what it holds and what is wrong.

    Args:
        config: `root`, `layout`, `train_phase`, `dontcare`, `instance_divisor` and `photo_filter` are used.
        wanted: What the model asks of the data; a number is its `n_labels`. None only counts labels.
        phases: Phases to check; None checks all.
        progress: Called with phase, pairs done and pairs in all.

    Raises:
        DataError: `root` is missing or has no known structure; what is wrong inside a phase goes into the report.
        ConfigError: the layout does not suit `n_labels`.
    """
    wanted = wanted if isinstance(wanted, Wanted) else Wanted(wanted)
    labels = None if wanted.n_labels is None else wanted.n_labels > 0
    known = find_phases(config, labels)
    reports: list[PhaseReport] = []
    for phase in phases or known:
        try:
            listing = find_pairs(config, phase, labels)
        except DataError as error:
            # What is wrong with the folders as a whole is said once.
            said = any(str(error) in report.faults for report in reports)
            reports.append(PhaseReport(phase, faults=[] if said else [str(error)]))
            continue
        report = _check_phase(listing, config, wanted.n_labels, progress)
        if phase == config.train_phase:
            _take_training(report, listing, config, wanted)
        reports.append(report)
    assert config.root is not None
    told = any(report.pairs for report in reports) and not phases and config.train_phase not in known
    absent = config.train_phase if told else ""
    return CheckReport(config.root, tuple(reports), config.dontcare, wanted, absent)


def check(
    root: Path,
    /,
    *,
    layout: LayoutName = "auto",
    n_labels: int | None = None,
    dontcare: int | None = None,
    phase: tuple[str, ...] = (),
    instance_divisor: int = 1000,
    instances: bool = False,
    size: SizeConfig = SizeConfig(),
    batch_size: int = 1,
) -> int:
    """Open every file of a dataset; print what it holds, and each fault with its remedy.

    The last options say what will be trained. With them, what training would refuse is a fault too.

    Args:
        root: Folder of the dataset.
        layout: Folder structure: nvidia, ab, side-by-side, cityscapes, packed, or auto to detect it.
        n_labels: Number of classes; labels at or above it are faults. 0 for A-to-B pictures.
        dontcare: Label whose pixels belong to no class, for example 255.
        phase: Phases to check, for example train; all if none is named.
        instance_divisor: Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself.
        instances: Instance maps are needed, as training does unless it has --model.no-instances.
        size: Size of a stage, as in training.
        batch_size: Samples of one batch and process; all must come out of one size.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    with typed_as(_TYPED):
        config = DataConfig(root=root, layout=layout, dontcare=dontcare, instance_divisor=instance_divisor)
        given = size if size != SizeConfig() or batch_size > 1 else None
        check_value(Labels | None, n_labels, "model.n_labels")
        wanted = Wanted(n_labels, instances, given, batch_size)
        with showing_progress(Console(stderr=True)) as progress:
            report = check_dataset(config, wanted, phase or None, progress)
        return print_report(report)


def _check_phase(
    listing: Listing,
    config: DataConfig,
    n_labels: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> PhaseReport:
    report = PhaseReport(listing.phase, listing.layout, len(listing.pairs), [str(orphan) for orphan in listing.orphans])
    results = in_threads(lambda pair: _inspect(pair, config, n_labels), listing.pairs)
    for done, (pair, found) in enumerate(zip(listing.pairs, results, strict=True), start=1):
        report.add(pair, found)
        if progress is not None:
            progress(listing.phase, done, len(listing.pairs))
    return report


def _take_training(report: PhaseReport, listing: Listing, config: DataConfig, wanted: Wanted) -> None:
    """Add what training on this phase would refuse, beside the faults of single files."""
    first = listing.pairs[0]
    if first.photo is None:
        report.faults.append(f"{config.root} has no photos for phase {listing.phase}: training needs pairs with photos")
    if wanted.instances and first.ids is None:
        report.faults.append(
            f"{config.root} has no instance maps for phase {listing.phase}: add them, or train with "
            "--model.no-instances"
        )
    report.lacks_instances = first.label is not None and first.ids is None and not wanted.instances
    if wanted.size is not None:
        try:
            require_size(report.examples, wanted.size.training, config.photo_filter, wanted.batch_size)
        except (DataError, ConfigError) as error:
            report.faults.append(str(error))


def _inspect(pair: Pair, config: DataConfig, n_labels: int | None) -> Found:
    """Read each file by itself, so that one fault does not hide the next."""
    found = Found()
    if pair.packed is not None:
        _inspect_packed(pair, pair.packed, found, config, n_labels)
        return found
    if pair.side_by_side:
        with found.noting():
            verify_checksums(next(iter(pair.files.values())))
            arrays = read_pair(pair, 0)
            found.size, found.channels = arrays.size, arrays.input.shape[2] if arrays.input is not None else None
        return found
    label = ids = None
    sizes = {}
    if pair.label:
        with found.noting():
            verify_checksums(pair.label)
            label = read_map(pair.label, "label map")
            sizes["label"] = (label.shape[1], label.shape[0])
            _take_label(found, pair.label, label, config, n_labels)
    if pair.input:
        with found.noting():
            verify_checksums(pair.input)
            source = read_input(pair.input)
            sizes["input"] = (source.shape[1], source.shape[0])
            found.channels = source.shape[2]
    if pair.ids:
        with found.noting():
            verify_checksums(pair.ids)
            ids = read_map(pair.ids, "instance map")
            sizes["ids"] = (ids.shape[1], ids.shape[0])
            _take_ids(found, pair.ids, ids, config, n_labels)
    if pair.photo:
        with found.noting():
            verify_checksums(pair.photo)
            sizes["photo"] = read_photo(pair.photo, next(iter(sizes.values()), None)).size
            found.turned = is_turned(read_header(pair.photo), sizes["photo"])
    if sizes:
        with found.noting():
            found.size = check_sizes(pair, sizes)
    if label is not None and ids is not None and label.shape == ids.shape:
        _take_agreement(found, label, ids, config)
    return found


def _inspect_packed(pair: Pair, sample: PackedSample, found: Found, config: DataConfig, n_labels: int | None) -> None:
    """Compare every stored size with its checksum, and look into the largest."""
    with found.noting():
        sample.require_whole()
        sample.require(verify(sample.path))
        arrays = read_pair(pair)
        found.size, found.channels = arrays.size, sample.channels or None
        if arrays.ids is not None:
            _take_ids(found, sample.path, arrays.ids, config, n_labels)
        if arrays.label is not None and arrays.ids is not None:
            _take_agreement(found, arrays.label, arrays.ids, config)
        if arrays.label is not None:
            _take_label(found, sample.path, arrays.label, config, n_labels)


def _take_label(found: Found, path: Path, label: np.ndarray, config: DataConfig, n_labels: int | None) -> None:
    values, counts = np.unique(label, return_counts=True)
    found.classes = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if n_labels is not None:
        check_labels(path, label, n_labels, config.dontcare)


def _take_ids(found: Found, path: Path, ids: np.ndarray, config: DataConfig, n_labels: int | None) -> None:
    different = np.unique(ids)
    found.ids = len(different)
    if n_labels:
        found.foreign = _foreign_id(path, different, n_labels, config)


def _take_agreement(found: Found, label: np.ndarray, ids: np.ndarray, config: DataConfig) -> None:
    found.agreeing = int((class_of(ids, config.instance_divisor) == label).sum())
    found.compared = label.size


def _foreign_id(path: Path, ids: np.ndarray, n_labels: int, config: DataConfig) -> str | None:
    """Tell of the first of different ids [n] whose class is neither a label nor dontcare."""
    classes = class_of(ids, config.instance_divisor)
    foreign = (classes < 0) | (classes >= n_labels)
    if config.dontcare is not None:
        # Cityscapes gives pixels of no class the id -1, or their label: neither is an instance.
        foreign &= (classes != config.dontcare) & (ids != config.dontcare)
    if not foreign.any():
        return None
    first = int(foreign.argmax())
    return (
        f"{path} holds id {ids[first]} of class {classes[first]}, but {option('model.n_labels')} is {n_labels}; set "
        f"{option('data.instance_divisor')} to the divisor of the ids, if they hold a class"
    )
