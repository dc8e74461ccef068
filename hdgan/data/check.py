"""Checking a dataset before a run is spent on it: every file opened, every fault named with its remedy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hdgan.data.config import DataConfig, LayoutName, SizeConfig
from hdgan.data.dataset import check_labels, check_sizes, read_pair
from hdgan.data.images import (
    Header,
    class_of,
    read_header,
    read_input,
    read_map,
    read_photo,
    require_map,
    shown_size,
    verify_checksums,
)
from hdgan.data.layouts import Listing, Pair, find_pairs, find_phases
from hdgan.data.transforms import draw_geometry
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
        if found.channels is not None:
            if self.channels and found.channels not in self.channels:
                usual = next(iter(self.channels))
                self.faults.append(
                    f"{pair.input} has {found.channels} channel(s), others {usual}; save all inputs alike"
                )
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


def quick_check(
    listing: Listing, data: DataConfig, size: SizeConfig, n_labels: int, *, batch: int = 1, full: int = 3
) -> list[str]:
    """Check what is cheap to check before the first step of training.

    Size and mode of every file are read from its header, and a few pairs, spread over the dataset, are decoded.

    Args:
        listing: From `find_pairs`.
        data: `dontcare` is used.
        size: The crop must fit every picture.
        n_labels: Number of classes; 0 for A-to-B.
        batch: With more than one sample a batch all must come out of `size` alike.
        full: Number of pairs that are decoded.

    Returns:
        Warnings, one line each.

    Raises:
        DataError: the first fault, and how many more there are.
    """
    found = _Found()
    outcomes: dict[tuple[int, int], Pair] = {}
    turned = []
    for pair in listing.pairs:
        with found.noting():
            source, is_turned = _from_headers(pair)
            turned += [pair] if is_turned else []
            try:
                outcomes.setdefault(draw_geometry(source, size).size, pair)
            except DataError as error:
                raise DataError(f"{next(iter(pair.files.values()))}: {error}") from None
    if batch > 1 and len(outcomes) > 1:
        (first, one), (second, other) = list(outcomes.items())[:2]
        found.faults.append(
            f"{one.stem} is {first[0]}x{first[1]} and {other.stem} is {second[0]}x{second[1]} in one batch; "
            "set width and height, or a crop, or a batch of 1"
        )
    for index in sorted({round(i) for i in np.linspace(0, len(listing.pairs) - 1, max(1, full))}):
        with found.noting():
            read_pair(listing.pairs[index], n_labels, data.dontcare)
    if found.faults:
        more = len(found.faults) - 1
        rest = f" ({more} more: list all with hdgan data check {data.root})" if more else ""
        raise DataError(found.faults[0] + rest)
    warnings = []
    if listing.orphans:
        count, example = len(listing.orphans), listing.orphans[0]
        warnings.append(f"{count} name(s) of {listing.phase} lack a partner and are not used, for example {example}")
    if turned:
        what = f"{len(turned)} photo(s) of {listing.phase} are turned upright by their EXIF orientation"
        warnings.append(f"{what}, for example {turned[0].photo}")
    return warnings


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
        layout: Folder structure: nvidia, ab, side-by-side, cityscapes, or auto to detect it.
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
    # Decoding leaves the interpreter's lock, so threads are enough.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        results = pool.map(lambda pair: _inspect(pair, config, n_labels), listing.pairs)
        for done, (pair, found) in enumerate(zip(listing.pairs, results, strict=True), start=1):
            report.add(pair, found)
            if progress is not None:
                progress(listing.phase, done, len(listing.pairs))
    finally:
        pool.shutdown(cancel_futures=True)
    return report


def _inspect(pair: Pair, config: DataConfig, n_labels: int | None) -> _Found:
    """Read each file by itself, so that one fault does not hide the next."""
    found = _Found()
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
            found.classes = _histogram(label)
            if n_labels is not None:
                check_labels(pair.label, label, n_labels, config.dontcare)
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
            found.ids = len(np.unique(ids))
    if pair.photo:
        with found.noting():
            verify_checksums(pair.photo)
            sizes["photo"] = read_photo(pair.photo, next(iter(sizes.values()), None)).size
            found.turned = _turned(read_header(pair.photo), sizes["photo"])
    if sizes:
        with found.noting():
            found.size = check_sizes(pair, sizes)
    if label is not None and ids is not None and label.shape == ids.shape:
        found.agreeing = int((class_of(ids, config.instance_divisor) == label).sum())
        found.compared = label.size
    return found


def _turned(header: Header, used: tuple[int, int]) -> bool:
    return header.orientation != 1 and used == header.upright


def _histogram(label: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(label, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _from_headers(pair: Pair) -> tuple[tuple[int, int], bool]:
    """(width, height) of a pair and whether its photo is turned, from the headers of its files alone."""
    headers = {part: read_header(path) for part, path in pair.files.items()}
    if pair.side_by_side:
        width, height = headers["input"].upright
        return (width // 2, height), False
    for part, header in headers.items():
        if part in ("label", "ids"):
            require_map(pair.files[part], header, "label map" if part == "label" else "instance map")
    sizes = {part: header.upright if part == "input" else header.size for part, header in headers.items()}
    photo = headers.get("photo")
    if photo is not None:
        sizes["photo"] = shown_size(photo, next(iter(sizes.values())))
    return check_sizes(pair, sizes), photo is not None and _turned(photo, sizes["photo"])


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
