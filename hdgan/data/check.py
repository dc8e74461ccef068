"""Checking a dataset before a run is spent on it: every file opened, every fault named with its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hdgan.data.config import DataConfig, LayoutName
from hdgan.data.dataset import check_labels, check_sizes, read_pair
from hdgan.data.headers import read_header, verify_checksums
from hdgan.data.images import (
    class_of,
    read_input,
    read_map,
    read_photo,
)
from hdgan.data.layouts import Listing, Pair, find_pairs, find_phases
from hdgan.data.packed import PackedSample, verify
from hdgan.data.quick_check import different_channels, in_threads, is_turned
from hdgan.errors import DataError


@dataclass
class PhaseReport:
    """What one phase holds, and what is wrong with it.

    Attributes:
        pairs: Number of pairs.
        faults: One line each, with file, value and remedy; orphans are among them.
        sizes: (width, height) in pixels -> number of pairs.
        class_pixels: Label -> its pixels in all label maps.
        class_pictures: Label -> number of label maps that hold it.
        ids: Number of distinct instance ids of each picture.
        agreeing, compared: Pixels whose instance belongs to the class of their label, of those with both.
        channels: Channels of the A-to-B input -> number of pairs.
        turned: Photos with an EXIF orientation, which are turned upright.
        foreign: Pictures with an instance id whose class is neither a label nor dontcare.
        foreign_example: The first of them: file, id and class, with the remedy.
    """

    phase: str
    layout: str = "unknown"
    pairs: int = 0
    faults: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    class_pixels: Counter[int] = field(default_factory=Counter)
    class_pictures: Counter[int] = field(default_factory=Counter)
    ids: list[int] = field(default_factory=list)
    agreeing: int = 0
    compared: int = 0
    channels: Counter[int] = field(default_factory=Counter)
    turned: int = 0
    foreign: int = 0
    foreign_example: str = ""

    @property
    def mean_size(self) -> tuple[float, float]:
        """Mean (width, height) in pixels of the pairs that could be read; (0, 0) without any."""
        total = max(1, self.sizes.total())
        width, height = (sum(size[axis] * count for size, count in self.sizes.items()) / total for axis in (0, 1))
        return width, height

    @property
    def agreement(self) -> float | None:
        """Share of pixels whose instance belongs to the class of their label; None without both maps."""
        return self.agreeing / self.compared if self.compared else None

    @property
    def notes(self) -> list[str]:
        """What is worth a look but no fault, one line each: such ids still part instances, only their class is off."""
        notes = []
        if self.foreign:
            notes.append(f"{self.foreign_example} ({self.foreign} picture(s) hold such ids)")
        if self.agreement is not None and self.agreement < 0.5:
            notes.append(
                f"the class of the instance id differs from the label at {100 * (1 - self.agreement):.0f} % of pixels; "
                "set --instance-divisor to the divisor of the ids if they hold a class"
            )
        return notes

    def add(self, pair: Pair, found: _Found) -> None:
        """Take in what one pair holds."""
        self.faults += found.faults
        if found.size is not None:
            self.sizes[found.size] += 1
        self.class_pixels.update(found.classes)
        self.class_pictures.update(found.classes.keys())
        if found.ids is not None:
            self.ids.append(found.ids)
        self.agreeing += found.agreeing
        self.compared += found.compared
        self.turned += found.turned
        if found.foreign is not None:
            self.foreign += 1
            self.foreign_example = self.foreign_example or found.foreign
        if found.channels is not None:
            if self.channels and found.channels not in self.channels:
                self.faults.append(different_channels(pair, found.channels, next(iter(self.channels))))
            self.channels[found.channels] += 1


@dataclass(frozen=True)
class CheckReport:
    """The phases of a dataset as they were found."""

    root: Path
    phases: tuple[PhaseReport, ...]
    dontcare: int | None = None

    @property
    def faults(self) -> list[str]:
        """All faults, phase by phase."""
        return [fault for phase in self.phases for fault in phase.faults]

    @property
    def n_labels(self) -> int:
        """The least `n_labels` that covers every label found but `dontcare`; 0 without label maps."""
        found = {label for phase in self.phases for label in phase.class_pixels} - {self.dontcare}
        return max((label + 1 for label in found if label is not None), default=0)


@dataclass
class _Found:
    """What one pair holds."""

    faults: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    classes: dict[int, int] = field(default_factory=dict)
    ids: int | None = None
    agreeing: int = 0
    compared: int = 0
    channels: int | None = None
    turned: bool = False
    foreign: str | None = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a DataError as a fault and go on."""
        try:
            yield
        except DataError as error:
            self.faults.append(str(error))


def check_dataset(
    config: DataConfig,
    n_labels: int | None = None,
    phases: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Open every file of a dataset and report what it holds and what is wrong.

    Args:
        config: `root`, `layout`, `dontcare` and `instance_divisor` are used.
        n_labels: Number of classes that labels must stay below; 0 for A-to-B pairs; None accepts any and only counts.
        phases: Phases to check; None checks all.
        progress: Called with phase, pairs done and pairs in all.

    Raises:
        DataError: `root` is missing or has no known structure; what is wrong inside a phase goes into the report.
        ConfigError: the layout does not suit `n_labels`.
    """
    labels = None if n_labels is None else n_labels > 0
    known = find_phases(config, labels)
    reports = []
    for phase in phases or known:
        try:
            listing = find_pairs(config, phase, labels)
        except DataError as error:
            reports.append(PhaseReport(phase, faults=[str(error)]))
            continue
        reports.append(_check_phase(listing, config, n_labels, progress))
    assert config.root is not None
    return CheckReport(config.root, tuple(reports), config.dontcare)


def print_report(report: CheckReport, console: Console | None = None) -> int:
    """Print a report.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    console = console or Console()
    for phase in report.phases:
        for line in _summary(phase):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if phase.class_pixels:
            console.print(_class_table(phase))
        for note in phase.notes:
            console.print(f"  note: {note}", markup=False, highlight=False, soft_wrap=True)
        for fault in phase.faults:
            console.print(f"  fault: {fault}", markup=False, highlight=False, soft_wrap=True)
    faults = len(report.faults)
    labels = f"; n_labels at least {report.n_labels} covers every label" if report.n_labels else ""
    verdict = f"{report.root}: {f'{faults} fault(s)' if faults else 'no faults'}{labels}"
    console.print(verdict, markup=False, highlight=False, soft_wrap=True)
    return 1 if faults else 0


def check(
    root: Path,
    /,
    *,
    layout: LayoutName = "auto",
    n_labels: int | None = None,
    dontcare: int | None = None,
    phase: tuple[str, ...] = (),
    instance_divisor: int = 1000,
) -> int:
    """Open every file of a dataset; print what it holds, and each fault with its remedy.

    Args:
        root: Folder of the dataset.
        layout: Folder structure: nvidia, ab, side-by-side, cityscapes, packed, or auto to detect it.
        n_labels: Number of classes; labels at or above it are faults. 0 for A-to-B pictures.
        dontcare: Label whose pixels belong to no class, for example 255.
        phase: Phases to check, for example train; all if none is named.
        instance_divisor: Class of an instance id: id // instance_divisor where id >= instance_divisor, else id itself.

    Returns:
        Exit status: 0 if the dataset is clean, 1 if it has faults.
    """
    config = DataConfig(root=root, layout=layout, dontcare=dontcare, instance_divisor=instance_divisor)
    with Progress(transient=True, console=Console(stderr=True)) as bar:
        tasks = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        report = check_dataset(config, n_labels, phase or None, progress)
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


def _inspect(pair: Pair, config: DataConfig, n_labels: int | None) -> _Found:
    """Read each file by itself, so that one fault does not hide the next."""
    found = _Found()
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


def _inspect_packed(pair: Pair, sample: PackedSample, found: _Found, config: DataConfig, n_labels: int | None) -> None:
    """Compare every stored size with its checksum, and look into the largest."""
    with found.noting():
        sample.require_whole()
        verify(sample.path)
        arrays = read_pair(pair)
        found.size, found.channels = arrays.size, sample.channels or None
        if arrays.ids is not None:
            _take_ids(found, sample.path, arrays.ids, config, n_labels)
        if arrays.label is not None and arrays.ids is not None:
            _take_agreement(found, arrays.label, arrays.ids, config)
        if arrays.label is not None:
            _take_label(found, sample.path, arrays.label, config, n_labels)


def _take_label(found: _Found, path: Path, label: np.ndarray, config: DataConfig, n_labels: int | None) -> None:
    values, counts = np.unique(label, return_counts=True)
    found.classes = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if n_labels is not None:
        check_labels(path, label, n_labels, config.dontcare)


def _take_ids(found: _Found, path: Path, ids: np.ndarray, config: DataConfig, n_labels: int | None) -> None:
    different = np.unique(ids)
    found.ids = len(different)
    if n_labels:
        found.foreign = _foreign_id(path, different, n_labels, config)


def _take_agreement(found: _Found, label: np.ndarray, ids: np.ndarray, config: DataConfig) -> None:
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
        f"{path} holds id {ids[first]} of class {classes[first]}, but n_labels is {n_labels}; set --instance-divisor "
        "to the divisor of the ids, if they hold a class"
    )


def _summary(report: PhaseReport) -> Iterator[str]:
    yield f"{report.phase} ({report.layout}): {report.pairs} pairs"
    if report.sizes:
        width, height = report.mean_size
        small, large = min(report.sizes), max(report.sizes)
        spread = "all alike" if small == large else f"from {small[0]}x{small[1]} to {large[0]}x{large[1]}"
        yield f"  size: mean {width:.0f}x{height:.0f}, {spread}"
    if report.channels:
        yield f"  input channels: {', '.join(f'{channels}' for channels in report.channels)}"
    if report.ids:
        yield f"  instance ids a picture: min {min(report.ids)}, median {median(report.ids):g}, max {max(report.ids)}"
    if report.agreement is not None:
        yield f"  instance class equals label: {100 * report.agreement:.2f} % of pixels"
    if report.turned:
        yield f"  photos turned upright by their EXIF orientation: {report.turned}"


def _class_table(report: PhaseReport) -> Table:
    table = Table("label", "pixels", "share %", "pictures", box=None)
    for column in table.columns:
        column.justify = "right"
    total = report.class_pixels.total()
    for label, pixels in sorted(report.class_pixels.items()):
        table.add_row(str(label), str(pixels), f"{100 * pixels / total:.3f}", str(report.class_pictures[label]))
    return table
