"""Packing a dataset: every pair read, checked and scaled once, so that training need not do so again and again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

from hdgan.data.config import DataConfig, SizeConfig, UnpackedLayout
from hdgan.data.dataset import check_labels, read_pair
from hdgan.data.layouts import Listing, Pair, find_pairs, find_phases
from hdgan.data.packed import (
    ENDING,
    FORMAT,
    INDEX,
    VERSION,
    encode,
    is_packed,
    listed_paths,
    load_index,
    sample_path,
    verify,
)
from hdgan.data.quick_check import in_threads, quick_check
from hdgan.data.transforms import Filter, apply_to_input, apply_to_map, apply_to_photo, draw_geometry, scaled_size
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.files import atomic_file, remove_dead_below

_PROBES = 3


@dataclass(frozen=True)
class PackReport:
    """What was packed.

    Attributes:
        samples: Samples in all phases.
        kept: Those of them that were there already, whole and from the same files.
        bytes: Length of their files together.
    """

    samples: int
    kept: int
    bytes: int


def pack(
    folder: Path,
    /,
    *,
    out: Path,
    width: tuple[int, ...] = (),
    height: tuple[int, ...] = (),
    layout: UnpackedLayout = "auto",
    n_labels: int | None = None,
    dontcare: int | None = None,
    phase: tuple[str, ...] = (),
    photo_filter: Filter = "bicubic",
    workers: int | None = None,
) -> int:
    """Write a dataset in a form that is read many times faster; train on it with --data.root OUT.

    Samples have the same pixels as from FOLDER. Repeat the command to go on after an interruption, or to renew what was
    damaged or has changed in FOLDER.

    Args:
        folder: Folder of the dataset.
        out: Folder to write.
        width: Widths to scale to, those of the training stages; the size of the files if none is given.
        height: Heights to scale to; with widths, one for each; without, widths follow from the aspect ratio.
        layout: Folder structure: nvidia, ab, side-by-side, cityscapes, or auto to detect it.
        n_labels: Number of classes; labels at or above it are refused. 0 for A-to-B pictures.
        dontcare: Label whose pixels belong to no class, for example 255.
        phase: Phases to pack, for example train; all if none is named.
        photo_filter: Resampling of photos; training must use the same.
        workers: Threads that read and write; as many as CPU cores, but at most 8, if not given.

    Returns:
        Exit status 0.
    """
    config = DataConfig(root=folder, layout=layout, dontcare=dontcare, photo_filter=photo_filter)
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with Progress(transient=True, console=console) as bar:
        tasks = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        sizes = sizes_of(width, height)
        report = pack_dataset(config, out, sizes, n_labels, phase or None, workers, say=say, progress=progress)
    kept = f", {report.kept} of them there before" if report.kept else ""
    print(f"{out}: {report.samples} samples, {decimal(report.bytes)}{kept}; train with --data.root {out}")
    return 0


def sizes_of(widths: Sequence[int], heights: Sequence[int]) -> tuple[SizeConfig, ...]:
    """Sizes to store: each width with the height of its place, or either alone with the aspect ratio of the files.

    Raises:
        ConfigError: widths and heights are both given, but not equally many.
    """
    if widths and heights and len(widths) != len(heights):
        raise ConfigError(f"{len(widths)} widths, but {len(heights)} heights: give one height for each width, or none")
    if not (widths or heights):
        return (SizeConfig(),)
    return tuple(SizeConfig(width=width, height=height) for width, height in zip_longest(widths, heights))


def pack_dataset(
    config: DataConfig,
    out: Path,
    sizes: Sequence[SizeConfig] = (SizeConfig(),),
    n_labels: int | None = None,
    phases: Sequence[str] | None = None,
    threads: int | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> PackReport:
    """Pack a dataset; where `out` holds some of it already, only what is missing, damaged or changed is written.

    Args:
        config: `root`, `layout`, `dontcare` and `photo_filter` are used.
        out: Folder to write.
        sizes: Sizes to store, for example those of the training stages; crops are left to training.
        n_labels: Number of classes that labels must stay below; 0 for A-to-B pairs; None accepts any.
        phases: Phases to pack; None packs all.
        threads: Threads that read and write; None takes as many as CPU cores, at most 8.
        say: Called with each warning, and with a line on the work ahead.
        progress: Called with phase, samples done and samples in all.

    Raises:
        DataError: a file of the dataset cannot be used.
        ConfigError: `out` holds something else, an unfinished packing of other phases too, or the layout does not suit
            `n_labels`.
        HdganError: there is no space for `out`, or it cannot be written.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--workers {threads}: give 1 or more")
    labels = None if n_labels is None else n_labels > 0
    names = phases or find_phases(config, labels)
    listings = [find_pairs(config, phase, labels) for phase in names]
    if listings[0].layout == "packed":
        raise ConfigError(f"{config.root} is packed already: name the folder that it was packed from")
    packer = _Packer(config, listings[0].layout, tuple(sizes), n_labels)
    index = _claim(out, packer.settings)
    _require_rest(out, index, names)
    before = listed_paths(out, index["phases"])
    replacing = _unfinishing(out, index, before)
    sources: Counter[tuple[int, int]] = Counter()
    for listing in listings:
        report = quick_check(listing, config, n_labels)
        sources += report.counts
        for warning in report.warnings:
            say(warning)
    say(_require_space(out, packer, listings, sources))
    if not index["phases"]:
        _write_index(out, index)  # claims the folder
    kept = 0
    packed = dict(index["phases"]) if phases else {}
    for listing in listings:
        entries = []
        results = in_threads(packer.writer(out, listing.phase, replacing), listing.pairs, threads)
        for done, (entry, was_there) in enumerate(results, start=1):
            entries.append(entry)
            kept += was_there
            progress(listing.phase, done, len(listing.pairs))
        packed[listing.phase] = {"parts": list(listing.pairs[0].files), "samples": entries}
    _write_index(out, {**index, "complete": True, "phases": packed})
    _remove_leftovers(out, index["phases"].keys() | packed.keys(), before, listed_paths(out, packed))
    lengths = [entry["bytes"] for name in names for entry in packed[name]["samples"]]
    return PackReport(len(lengths), kept, sum(lengths))


class _Packer:
    """Makes the files of samples."""

    def __init__(self, config: DataConfig, layout: str, sizes: tuple[SizeConfig, ...], n_labels: int | None) -> None:
        assert config.root is not None
        self.root = config.root
        self.config, self.n_labels = config, n_labels
        self.sizes = tuple(size.whole for size in sizes)
        self.settings = {
            "source": str(config.root.absolute()),
            "layout": layout,
            "photo_filter": config.photo_filter,
            # An asterisk is the side that follows from the aspect ratio.
            "sizes": ", ".join(f"{size.width or '*'}x{size.height or '*'}" for size in self.sizes),
        }

    def pixels(self, source: tuple[int, int]) -> int:
        """Pixels stored of a sample whose files are of size `source`."""
        return sum(width * height for width, height in {scaled_size(source, size) for size in self.sizes})

    def encoded(self, pair: Pair) -> tuple[bytes, dict[str, Any]]:
        """The file of a pair, and what its metadata tells of it."""
        files = self._files(pair)
        arrays = read_pair(pair, self.n_labels, self.config.dontcare)
        sized = {}
        for size in self.sizes:
            geometry = draw_geometry(arrays.size, size)
            parts: dict[str, np.ndarray] = {}
            if arrays.label is not None:
                parts["label"] = apply_to_map(arrays.label, geometry)
            if arrays.input is not None:
                parts["input"] = apply_to_input(arrays.input, geometry, self.config.photo_filter)
            if arrays.ids is not None:
                parts["ids"] = apply_to_map(arrays.ids, geometry)
            if arrays.photo is not None:
                parts["photo"] = apply_to_photo(arrays.photo, geometry, self.config.photo_filter)
            sized[geometry.size] = parts
        about = {
            "stem": pair.stem,
            "source": arrays.size,
            "sizes": sorted(sized, key=lambda size: size[0] * size[1], reverse=True),
            "channels": 0 if arrays.input is None else arrays.input.shape[2],
            "files": files,
            # All of the source: scaling may drop the label that a later packing refuses.
            "labels": [] if arrays.label is None else np.unique(arrays.label).tolist(),
        }
        return encode(sized, about), about

    def writer(
        self, out: Path, phase: str, replacing: Callable[[Path], None]
    ) -> Callable[[Pair], tuple[dict[str, Any], bool]]:
        """A function that writes the file of a pair; it returns the entry of the index, and whether it was there.

        `replacing` is called before each file that is written.
        """

        def write(pair: Pair) -> tuple[dict[str, Any], bool]:
            path = sample_path(out, phase, pair.stem)
            about = self._present(path, pair)
            was_there = about is not None
            if about is None:
                content, about = self.encoded(pair)
                replacing(path)
                with atomic_file(path) as temporary:
                    temporary.write_bytes(content)
            entry = {key: about[key] for key in ("stem", "source", "sizes", "channels")}
            return {**entry, "bytes": path.stat().st_size}, was_there

        return write

    def _present(self, path: Path, pair: Pair) -> dict[str, Any] | None:
        """Metadata of a file that is there, whole and made from the files as they are now.

        Raises:
            DataError: the files hold a label that this packing refuses.
        """
        try:
            about = verify(path)
        except DataError:
            return None
        if about["files"] != self._files(pair) or "labels" not in about:  # earlier hdgan did not note them
            return None
        if pair.label and about["labels"] and self.n_labels is not None:
            check_labels(pair.label, np.array(about["labels"]), self.n_labels, self.config.dontcare)
        return about

    def _files(self, pair: Pair) -> dict[str, list[Any]]:
        """Part -> name below the dataset's folder, bytes, and time of the last change in nanoseconds."""
        stats = {part: (path, path.stat()) for part, path in pair.files.items()}
        return {
            part: [path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns]
            for part, (path, stat) in stats.items()
        }


def _claim(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The index of `out` if it was packed, or begun, in the same way; else a new one.

    Raises:
        ConfigError: `out` holds something else.
        DataError: the index is damaged.
    """
    if is_packed(out):
        index = load_index(out)
        for name, now in settings.items():
            was = index["settings"].get(name)
            if was != now:
                raise ConfigError(f"{out} was packed with {name} {was}, not {now}: choose another --out, or remove it")
        return index
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is no packed dataset: choose another --out, or remove it")
    return {"format": FORMAT, "version": VERSION, "complete": False, "settings": dict(settings), "phases": {}}


def _require_rest(out: Path, index: Mapping[str, Any], names: Sequence[str]) -> None:
    """A packing that was interrupted may have left old samples among new ones in any phase that the index lists."""
    rest = [] if index["complete"] else sorted(index["phases"].keys() - set(names))
    if rest:
        raise ConfigError(
            f"{out} is not packed to its end, in which phase is not known: name {', '.join(rest)} too, or no --phase"
        )


def _unfinishing(out: Path, index: Mapping[str, Any], listed: set[Path]) -> Callable[[Path], None]:
    """A function to call before a file is written: at the first that the index lists, it makes this unfinished.

    Otherwise a packing that is interrupted would leave old samples among new ones, and pass as whole.
    """
    lock, complete = Lock(), index["complete"]

    def replacing(path: Path) -> None:
        nonlocal complete
        with lock:
            if complete and path in listed:
                _write_index(out, {**index, "complete": False})
                complete = False

    return replacing


def _require_space(
    out: Path, packer: _Packer, listings: Sequence[Listing], sources: Mapping[tuple[int, int], int]
) -> str:
    """Tell how much will be written, from a few samples made in memory.

    Raises:
        HdganError: that much is not free.
    """
    pairs = [pair for listing in listings for pair in listing.pairs]
    probes = [packer.encoded(pairs[i]) for i in sorted({int(i) for i in np.linspace(0, len(pairs) - 1, _PROBES)})]
    rate = sum(len(content) for content, _ in probes) / sum(packer.pixels(about["source"]) for _, about in probes)
    total = round(rate * sum(count * packer.pixels(source) for source, count in sources.items()))
    paths = [sample_path(out, listing.phase, pair.stem) for listing in listings for pair in listing.pairs]
    there = sum(path.stat().st_size for path in paths if path.is_file())
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if total - there > free:
        raise HdganError(
            f"{out} needs about {decimal(total - there)}, but {decimal(free)} are free: free space, choose another "
            "--out, or pack smaller or fewer sizes"
        )
    return f"{len(pairs)} samples, about {decimal(total)}, to {out}; {decimal(free)} are free"


def _remove_leftovers(out: Path, phases: Iterable[str], before: set[Path], now: set[Path]) -> None:
    """Remove the files of samples that are gone from the dataset, and those that a killed packing left half written.

    Only samples that the index listed `before` or lists `now` were written here: the folder may hold other files.
    """
    gone, written = before - now, before | now
    for phase in phases:
        remove_dead_below(out / phase, written.__contains__)
        for file in (out / phase).rglob(f"*{ENDING}"):
            if file in gone:
                file.unlink()


def _write_index(out: Path, index: Mapping[str, Any]) -> None:
    with atomic_file(out / INDEX) as temporary:
        temporary.write_text(json.dumps(index, ensure_ascii=False, indent=1), encoding="utf-8")
