"""Packing a dataset: every pair is read, checked and scaled once, so that training need not repeat that."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
from rich.filesize import decimal

from hdgan.config.bounds import Labels, Threads
from hdgan.config.options import option
from hdgan.config.serialization import check_value, to_plain
from hdgan.data.class_file import CLASS_FILE, find_classes
from hdgan.data.config import DataConfig, Size, SizeConfig
from hdgan.data.folders import as_text
from hdgan.data.inspection import ROUND, ProgressCallback, in_threads, quick_check, silent
from hdgan.data.layouts import find_pairs, find_phases
from hdgan.data.packed import encode, verify_packed
from hdgan.data.packed_index import (
    ENDING,
    FORMAT,
    INDEX,
    VERSION,
    About,
    Entry,
    Index,
    IndexedPhase,
    Settings,
    is_packed,
    load_index,
    require_inside,
    sample_path,
)
from hdgan.data.pairs import Listing, Pair, size_of
from hdgan.data.transforms import apply_geometry, sample_geometry, scaled_size
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import atomic_file, leads_out, remove_dead, remove_dead_below, write_text
from hdgan.sharding.world import ALONE, World
from hdgan.wording import count

_PROBES = 3
_LONGEST_NAME = 255 - len(f".{ENDING}.01234567.hdtmp")  # bytes, so that the name of the temporary file fits as well


@dataclass(frozen=True)
class PackReport:
    """The result of packing."""

    samples: int
    """Samples in all phases."""
    kept: int
    """Number of samples that were already there, undamaged and made from the same files."""
    bytes: int
    """Total length of their files in bytes."""


def pack_dataset(
    config: DataConfig,
    out: Path,
    sizes: Sequence[SizeConfig] = (SizeConfig(),),
    n_labels: int | None = None,
    phases: Sequence[str] | None = None,
    threads: int | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: ProgressCallback = silent,
    world: World = ALONE,
) -> PackReport:
    """Pack a dataset. If `out` already contains part of it, only what is missing, damaged or changed is written.

    classes.csv, which names the classes of label maps, is copied as it is.

    Args:
        config: `root`, `layout`, `dontcare`, `photo` and `photo_filter` are used.
        out: Folder to write.
        sizes: Sizes to store, for example those of the training stages; crops are left to training.
        n_labels: Number of classes that labels must stay below; 0 for A-to-B pairs; None accepts any.
        phases: Phases to pack; None packs all.
        threads: Threads that read and write; None uses as many as CPU cores, at most 8.
        say: Called with each warning, and with a line about the work ahead.
        progress: Called with phase, samples done and samples in all, after it was called with "<phase> (headers)" for
            the pairs inspected.
        world: The processes that share the samples. All of them call this, and have the same report. They must see the
            same folders.

    Raises:
        DataError: a file of the dataset cannot be used.
        ConfigError: `out` contains something else or an unfinished packing that also covers other phases, or the layout
            does not suit `n_labels`.
        HdganError: there is no space for `out`, or it cannot be written.
    """
    check_value(Threads | None, threads, "threads")
    check_value(Labels | None, n_labels, "model.n_labels")
    labels = None if n_labels is None else n_labels > 0
    names = phases or find_phases(config, labels)
    listings = [find_pairs(config, phase, labels) for phase in names]
    if listings[0].layout == "packed":
        raise ConfigError(f"{config.root} is already packed: give the folder that it was packed from")
    packer = _Packer(config, listings[0].layout, tuple(sizes), n_labels)
    if listings[0].pairs[0].label is not None:
        find_classes(packer.root, n_labels)  # refuses what nobody could use in `out`
    paths = _target_paths(out, listings)
    index = _claim(out, packer.settings, names)
    before = index.paths(out)
    sources: Counter[Size] = Counter()
    for listing in listings:
        report = quick_check(listing, config, n_labels, progress=progress, world=world)
        sources += report.sizes
        for warning in report.warnings:
            say(warning)
    if world.is_main:
        say(_require_space(out, packer, listings, sources, paths))
        if not index.phases:
            _write_index(out, index)  # claims the folder
    _require_seen(out, world)
    write = partial(packer.write, replacing=_unfinishing(out, index, before))
    kept = 0
    packed = dict(index.phases) if phases else {}
    for listing in listings:
        own = in_threads(partial(write, out / listing.phase), world.share(listing.pairs), threads)
        packed[listing.phase], there = _gather(listing, own, progress, world)
        kept += there
    if world.is_main:
        finished = replace(index, complete=True, phases=packed)
        if listings[0].pairs[0].label is not None:
            _copy_classes(packer.root, out)
        _write_index(out, finished)
        _remove_leftovers(out, index.phases.keys() | packed.keys(), before, finished.paths(out))
    lengths = [entry.bytes for name in names for entry in packed[name].samples]
    return PackReport(len(lengths), kept, sum(lengths))


def _gather(
    listing: Listing, own: Iterator[tuple[Entry, bool]], progress: ProgressCallback, world: World
) -> tuple[IndexedPhase, int]:
    """The index of a phase from what each process wrote of it, and how many of its samples were already there."""
    entries, kept, total = [], 0, len(listing.pairs)
    for entry, was_there in world.in_order(own, total, ROUND):
        entries.append(entry)
        kept += was_there
        progress(listing.phase, len(entries), total)
    return IndexedPhase(tuple(listing.pairs[0].files), tuple(entries)), kept


def _copy_classes(root: Path, out: Path) -> None:
    """Copy classes.csv. If the dataset has none, one that the user has put into `out` stays."""
    if (root / CLASS_FILE).is_file():
        with atomic_file(out / CLASS_FILE) as temporary:
            temporary.write_bytes((root / CLASS_FILE).read_bytes())


def _require_seen(out: Path, world: World) -> None:
    """Make sure that this process sees the folder that the main process has claimed.

    Raises:
        ConfigError: it does not.
    """
    world.barrier()
    if not is_packed(out):
        raise ConfigError(
            f"{out} is not there for process {world.rank}, although process 0 has made it: choose an {option('out')} "
            "that all processes share, such as one on a network file system"
        )


def _target_paths(out: Path, listings: Sequence[Listing]) -> list[Path]:
    """The files of all samples.

    Raises:
        DataError: no file there can have the name of a sample.
    """
    for listing in listings:
        for pair in listing.pairs:
            file = pair.first_file
            if leads_out(pair.stem):
                raise DataError(f"{file}: not every system allows a file named {pair.stem!r}; rename it")
            if len(os.fsencode(pair.stem.rpartition("/")[2])) > _LONGEST_NAME:
                raise DataError(f"{file}: its name is longer than {_LONGEST_NAME} bytes; rename it")
    paths = [sample_path(out / listing.phase, pair.stem) for listing in listings for pair in listing.pairs]
    require_inside(out, paths)
    return paths


def _claim(out: Path, settings: Settings, names: Sequence[str]) -> Index:
    """The index of `out` if its packing has the same settings, finished or not; a new one if `out` is empty.

    Raises:
        ConfigError: `out` contains something else, or an interrupted packing that also covers phases not in `names`,
            each of which may mix old and new samples.
        DataError: the index is damaged.
    """
    another = f"choose another {option('out')}, or remove it"
    if not is_packed(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out} exists and is not a packed dataset: {another}")
        return Index(FORMAT, VERSION, False, settings, {})
    index = load_index(out)
    before = asdict(index.settings)
    for name, now in asdict(settings).items():
        if before[name] != now:
            raise ConfigError(f"{out} was packed with {name} {before[name]}, not {now}: {another}")
    rest = sorted(index.phases.keys() - set(names))
    if rest and not index.complete:
        raise ConfigError(
            f"{out} is only partly packed, and its phases may mix old and new samples: also give {', '.join(rest)}, "
            f"or leave {option('phase')} out"
        )
    return index


def _unfinishing(out: Path, index: Index, listed: set[Path]) -> Callable[[Path], None]:
    """A function to call before a file is written: before the first listed file it marks the index as unfinished.

    Otherwise an interrupted packing would leave old samples among new ones and look finished.
    """
    lock, complete = Lock(), index.complete

    def replacing(path: Path) -> None:
        nonlocal complete
        with lock:
            if complete and path in listed:
                _write_index(out, replace(index, complete=False))
                complete = False

    return replacing


def _require_space(
    out: Path, packer: _Packer, listings: Sequence[Listing], sources: Mapping[Size, int], paths: Sequence[Path]
) -> str:
    """A line about how much will be written, estimated from a few samples made in memory.

    Raises:
        HdganError: that much space is not free.
    """
    pairs = [pair for listing in listings for pair in listing.pairs]
    probes = [packer.encoded(pairs[i]) for i in sorted({int(i) for i in np.linspace(0, len(pairs) - 1, _PROBES)})]
    rate = sum(len(content) for content, _ in probes) / sum(packer.pixels(about.source) for _, about in probes)
    total = round(rate * sum(number * packer.pixels(source) for source, number in sources.items()))
    present = sum(path.stat().st_size for path in paths if path.is_file())
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if total - present > free:
        raise HdganError(
            f"{out} needs about {decimal(total - present)}, but only {decimal(free)} are free: free space, choose "
            f"another {option('out')}, or pack smaller or fewer sizes"
        )
    return f"{count(len(pairs), 'sample')}, about {decimal(total)}, to {out}; {decimal(free)} are free"


def _remove_leftovers(out: Path, phases: Iterable[str], before: set[Path], now: set[Path]) -> None:
    """Remove the files of samples that the dataset no longer has, and temporary files of a killed packing.

    The folder may hold other files: only those that the index listed `before` or lists `now` are hdgan's.
    """
    gone, written = before - now, before | now
    remove_dead(out, {out / INDEX}.__contains__)
    for phase in phases:
        remove_dead_below(out / phase, written.__contains__)
        for file in (out / phase).rglob(f"*{ENDING}"):
            if file in gone:
                file.unlink()


def _write_index(out: Path, index: Index) -> None:
    write_text(out / INDEX, json.dumps(to_plain(replace(index, version=VERSION)), ensure_ascii=False))


class _Packer:
    """Makes the files of samples.

    Args:
        config: `root`, `dontcare` and `photo_filter` are used.
        layout: Of the dataset.
        sizes: Sizes to store.
        n_labels: Number of classes that labels must stay below; None accepts any.
    """

    def __init__(self, config: DataConfig, layout: str, sizes: tuple[SizeConfig, ...], n_labels: int | None) -> None:
        assert config.root is not None
        self.root = config.root
        self.config, self.n_labels = config, n_labels
        self.sizes = tuple(size.whole for size in sizes)
        # An asterisk is the side that follows from the aspect ratio.
        stored = ", ".join(f"{size.width or '*'}x{size.height or '*'}" for size in self.sizes)
        source = as_text(str(config.root.absolute()))
        self.settings = Settings(source, layout, config.photo_filter, stored, config.photo)

    def pixels(self, source: tuple[int, int]) -> int:
        """Pixels stored for a sample whose files are of size `source`."""
        return sum(width * height for width, height in {scaled_size(source, size) for size in self.sizes})

    def encoded(self, pair: Pair) -> tuple[bytes, About]:
        """The packed file of a pair, and its metadata."""
        files = self._files(pair)
        arrays = pair.read()
        pair.check_labels(arrays.get("label"), self.n_labels, self.config.dontcare)
        source = size_of(next(iter(arrays.values())))
        geometries = [sample_geometry(source, size) for size in self.sizes]
        sized = {geometry.size: apply_geometry(arrays, geometry, self.config.photo_filter) for geometry in geometries}
        about = About(
            pair.stem,
            source,
            tuple(sorted(sized, key=lambda size: size[0] * size[1], reverse=True)),
            arrays["input"].shape[2] if "input" in arrays else 0,
            files,
            # All labels of the source: scaling may drop one that a later packing refuses.
            tuple(np.unique(arrays["label"]).tolist()) if "label" in arrays else (),
        )
        return encode(sized, about), about

    def write(self, folder: Path, pair: Pair, replacing: Callable[[Path], None]) -> tuple[Entry, bool]:
        """Write the file of a pair in the folder of its phase, unless it is there, after a call of `replacing`.

        Returns:
            The entry of the index, and whether the file was there.
        """
        path = sample_path(folder, pair.stem)
        about = self._present(path, pair)
        was_there = about is not None
        if about is None:
            content, about = self.encoded(pair)
            replacing(path)
            with atomic_file(path) as temporary:
                temporary.write_bytes(content)
        return Entry(about.stem, about.source, about.sizes, about.channels, path.stat().st_size), was_there

    def _present(self, path: Path, pair: Pair) -> About | None:
        """Metadata of a file that is whole and was made from the pair's files as they are now; else None.

        Raises:
            DataError: the pair's files hold a label that this packing refuses.
        """
        try:
            about = verify_packed(path)
        except DataError:
            return None
        if about.stem != pair.stem or about.files != self._files(pair) or about.labels is None:
            return None
        if about.labels:
            pair.check_labels(np.array(about.labels), self.n_labels, self.config.dontcare)
        return about

    def _files(self, pair: Pair) -> dict[str, tuple[str, int, int]]:
        """Part -> name below the dataset's folder, bytes, and time of the last change in nanoseconds."""
        stats = {part: (path, path.stat()) for part, path in pair.files.items()}
        return {
            part: (as_text(path.relative_to(self.root).as_posix()), stat.st_size, stat.st_mtime_ns)
            for part, (path, stat) in stats.items()
        }
