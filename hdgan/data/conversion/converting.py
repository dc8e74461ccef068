"""Converting a source: its format, its samples, and what they amount to."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from hdgan.config.options import option
from hdgan.config.serialization import to_plain
from hdgan.data.class_file import CLASS_FILE, read_classes, write_classes
from hdgan.data.colors import numbered_classes
from hdgan.data.conversion.finding import find_folders, require_distinct
from hdgan.data.conversion.source import ConversionOptions, RawDataset, RawSample, SourceFormat
from hdgan.data.conversion.splitting import divided
from hdgan.data.conversion.staging import (
    ConversionRecord,
    ConversionSummary,
    Staging,
    WrittenSample,
    finished,
    require_place,
    staging,
)
from hdgan.data.conversion.writing import SampleWriter
from hdgan.data.folders import no_images, other_endings
from hdgan.data.inspection import ProgressCallback, in_threads, silent
from hdgan.data.pairs import is_far_above
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, DataError
from hdgan.files.csv import write_csv
from hdgan.wording import count

FormatName = Literal["colors", "coco-panoptic", "cvat", "images-labels", "labelme", "train-ab"]
FORMATS: tuple[str, ...] = get_args(FormatName)
INEXACT = "inexact.csv"
"""The file that lists samples with colours that were not exact."""
_ANNOTATIONS = frozenset({".csv", ".json", ".txt", ".xml"})
"""Endings of files that describe shapes in text: a folder of them does not consist of label maps."""
_MOST_FAULTS = 20
"""Faults that are listed before the others are only counted."""


@dataclass(frozen=True)
class ConversionReport:
    """The result of a conversion."""

    out: Path
    summary: ConversionSummary
    spec: DatasetSpec | None
    """The classes; None for A-to-B pairs."""
    written: int
    """Samples that this call has written."""
    kept: int
    """Samples that an earlier call had written."""


@cache
def formats() -> dict[str, SourceFormat]:
    """All formats by name."""
    return {name: import_module(f"hdgan.data.conversion.{name.replace('-', '_')}").FORMAT for name in FORMATS}


def find_format(options: ConversionOptions) -> SourceFormat:
    """The only format that fits a source.

    Raises:
        DataError: none does, or several do; or the folder of label maps contains no images.
    """
    fits = [each for each in formats().values() if each.rank == 0 and each.fits(options)]
    fits = fits or [each for each in formats().values() if each.rank > 0 and each.fits(options)]
    if not fits:
        raise _unknown(options.source)
    if len(fits) > 1:
        names = " and ".join(each.name for each in fits)
        raise DataError(
            f"{options.source} fits the formats {names}: give {option('format')} with the one that you mean"
        )
    return fits[0]


def _unknown(source: Path) -> DataError:
    """The error that no format fits a source."""
    for folder in [found.folders["label"] for found in find_folders(source)] if source.is_dir() else []:
        if not _ANNOTATIONS.intersection(other_endings(folder)):  # whose folder may be called like one of label maps
            return no_images(folder)
    known = "; ".join(f"{each.name}: {each.pattern}" for each in formats().values())
    return DataError(f"{source} has no known format. Known are {known}")


def convert_dataset(
    options: ConversionOptions,
    out: Path,
    format: FormatName | None = None,
    *,
    link: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: ProgressCallback = silent,
) -> ConversionReport:
    """Convert a dataset to the layout nvidia, or to ab if it consists of A-to-B pairs.

    `out` is complete or absent: samples are written to a folder OUT.partial, which is renamed at the end. Faults of
    single samples do not end the work, so that all of them are told; a repeat keeps the samples that were written.

    Args:
        options: The source, and how it is read.
        out: Folder to write.
        format: Of the source; None recognises it.
        link: Make hard links to the photos instead of copies. Their bytes are the same in either case.
        say: Called with lines about the source, and with each fault.
        progress: Called with the name of a task, how much of it is done, and its total.

    Raises:
        DataError: the source cannot be converted.
        ConfigError: an option has no effect or does not suit the source, or `out` contains something else.
        HdganError: `out` is not writable, or the disk is full.
    """
    source, dataset, samples = _opened(options, out, format, say, progress)
    with staging(out) as stage:
        writer = SampleWriter(stage.folder, _settings(options, dataset, source), link)
        digests = [writer.digest(sample) for sample in samples]
        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        before = finished(out)
        if before is not None:
            return _unchanged(out, before, digest, len(samples))
        written = stage.written()
        kept = {
            (sample.phase, sample.stem): written[sample.phase, sample.stem]
            for sample, own in zip(samples, digests, strict=True)
            if (sample.phase, sample.stem) in written and written[sample.phase, sample.stem].digest == own
        }
        stage.begin(kept.values())
        results = kept | _write_others(samples, kept, writer, stage, say, progress)
        ordered = [results[sample.phase, sample.stem] for sample in samples]
        summary, spec = _summary(dataset, ordered)
        others = _write_lists(stage.folder, ordered, spec)
        stage.finish(ordered, others, ConversionRecord(digest=digest, summary=summary))
    return ConversionReport(out, summary, spec, len(samples) - len(kept), len(kept))


def _opened(
    options: ConversionOptions,
    out: Path,
    format: FormatName | None,
    say: Callable[[str], None],
    progress: ProgressCallback,
) -> tuple[SourceFormat, RawDataset, Sequence[RawSample]]:
    """The format of a source, what it contains, and its samples with their phases."""
    if not options.source.exists():
        raise DataError(f"{options.source} does not exist: check the path")
    if options.photos is not None and not options.photos.is_dir():
        raise DataError(f"{option('photos')} {options.photos} is not a folder: give the folder of the photos")
    require_place(out)
    real = Path(os.path.realpath(out))
    if Path(os.path.realpath(options.source)) in (real, *real.parents):
        raise ConfigError(
            f"{option('out')} {out} lies in {options.source}, which is searched: choose a folder beside it"
        )
    source = find_format(options) if format is None else formats()[format]
    source.require_effect(options)
    dataset = source.open(options, progress)
    require_distinct(dataset.samples)
    samples, how = divided(dataset.samples, options)
    if not samples:
        raise DataError(f"{options.source} has no samples: check that it is {source.pattern}")
    for line in (f"{options.source}: {count(len(samples), 'sample')} ({source.name})", *dataset.notes, how):
        if line:
            say(line)
    return source, dataset, samples


def _settings(options: ConversionOptions, dataset: RawDataset, source: SourceFormat) -> str:
    """All that decides on the content of the samples, besides their files and phases."""
    chosen = {
        name: value
        for name, value in to_plain(options).items()
        if name not in ("source", "photos", "classes", "val_fraction", "val_list", "skip_unpaired")
    }
    spec = dataset.spec
    classes = None if spec is None else [spec.classes, spec.css_colors]
    return json.dumps([source.name, chosen, classes, dataset.dontcare, dataset.divisor])


def _unchanged(out: Path, record: ConversionRecord, digest: str, n: int) -> ConversionReport:
    """The report on a folder that was finished before.

    Raises:
        ConfigError: it was made of other files, or with other options.
    """
    if record.digest != digest:
        raise ConfigError(
            f"{out} exists, but was converted with other options, or from files that have changed since: choose "
            f"another {option('out')}, or remove it"
        )
    spec = read_classes(out / CLASS_FILE) if record.summary.n_labels else None
    return ConversionReport(out, record.summary, spec, 0, n)


def _write_others(
    samples: Sequence[RawSample],
    kept: dict[tuple[str, str], WrittenSample],
    writer: SampleWriter,
    stage: Staging,
    say: Callable[[str], None],
    progress: ProgressCallback,
) -> dict[tuple[str, str], WrittenSample]:
    """Write the samples that are not there yet.

    Raises:
        DataError: some cannot be converted; the others are written nevertheless.
    """
    missing = [sample for sample in samples if (sample.phase, sample.stem) not in kept]
    written: dict[tuple[str, str], WrittenSample] = {}
    faults: list[DataError] = []
    for done, result in enumerate(in_threads(partial(_attempt, writer), missing), start=len(kept) + 1):
        if isinstance(result, WrittenSample):
            stage.note(result)
            written[result.phase, result.stem] = result
        else:
            faults.append(result)
            if len(faults) <= _MOST_FAULTS:
                say(f"fault: {result}")
        progress("samples", done, len(samples))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(samples)} samples cannot be converted, the first: {faults[0]}. Repeat the command "
            "after the repair: it keeps the others"
        )
    return written


def _attempt(writer: SampleWriter, sample: RawSample) -> WrittenSample | DataError:
    try:
        return writer.write(sample)
    except DataError as error:
        return error


def _summary(dataset: RawDataset, samples: Sequence[WrittenSample]) -> tuple[ConversionSummary, DatasetSpec | None]:
    """What the samples amount to, and their classes, which get numbers for names where they have none."""
    pixels, images = Counter[str](), Counter[str]()
    for sample in samples:
        pixels.update(sample.labels)
        images.update(sample.labels.keys())
    summary = ConversionSummary(
        samples=dict(sorted(Counter(sample.phase for sample in samples).items())),
        pixels=dict(sorted(pixels.items(), key=lambda item: int(item[0]))),
        images=dict(images),
        width=Counter(sample.size[0] for sample in samples).most_common(1)[0][0],
        divisor=dataset.divisor,
        dontcare=dataset.dontcare,
        instances=any(sample.instances for sample in samples),
        inexact=sum(sample.inexact for sample in samples),
    )
    if not pixels:
        return summary, None
    if dataset.spec is not None:
        return replace(summary, n_labels=dataset.spec.n_labels), dataset.spec
    labels = [label for label in sorted(map(int, pixels)) if label != dataset.dontcare]
    if dataset.dontcare is None and labels == [0, 255]:
        raise DataError(
            "the label maps contain only 0 and 255: if 255 is a class, as in masks, convert with "
            f"{option('format')} colors and a palette of #000000 and #ffffff; if it belongs to no class, give "
            f"{option('dontcare')} 255"
        )
    if dataset.dontcare is None and len(labels) > 1 and is_far_above(labels[-1], labels[-2]):
        summary = replace(summary, dontcare=labels.pop())
    spec = numbered_classes(labels[-1] + 1 if labels else 1)
    return replace(summary, n_labels=spec.n_labels), spec


def _write_lists(folder: Path, samples: Sequence[WrittenSample], spec: DatasetSpec | None) -> list[str]:
    """Write the lists of classes and of inexact samples; returns their names."""
    names = []
    if spec is not None:
        write_classes(folder / CLASS_FILE, spec)
        names.append(CLASS_FILE)
    lines = [
        (sample.phase, sample.stem, sample.inexact, f"{100 * sample.inexact / (sample.size[0] * sample.size[1]):.4f}")
        for sample in samples
        if sample.inexact
    ]
    if lines:
        write_csv(folder / INEXACT, ("phase", "sample", "pixels", "percent"), sorted(lines, key=lambda line: -line[2]))
        names.append(INEXACT)
    return names
