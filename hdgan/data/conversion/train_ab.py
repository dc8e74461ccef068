"""CycleGAN's folders trainA, trainB, testA and testB, of which files of one name are a pair."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

from hdgan.config.options import option
from hdgan.data.class_file import CLASS_FILE
from hdgan.data.conversion.class_names import dontcare_of, given_classes
from hdgan.data.conversion.finding import PHASES, require_paired
from hdgan.data.conversion.labels import ColorReader, LabelReader, is_colored
from hdgan.data.conversion.source import ConversionOptions, RawDataset, RawSample, SourceFormat
from hdgan.data.folders import subfolders_of
from hdgan.data.inspection import ProgressCallback
from hdgan.data.layouts import match_folders
from hdgan.errors import ConfigError, DataError


class TrainAB(SourceFormat):
    """Pairs of images A and B; with `labels_in`, one side is label maps."""

    name: ClassVar[str] = "train-ab"
    pattern: ClassVar[str] = "trainA and trainB"
    uses: ClassVar[frozenset[str]] = frozenset({"classes", "dontcare", "nearest", "labels_in"})

    def fits(self, options: ConversionOptions) -> bool:
        return bool(_phases(options.source))

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        phases = _phases(options.source)
        if not phases:
            raise DataError(f"{options.source} has no folders trainA and trainB: name the folders so")
        for name in ("classes", "dontcare", "nearest"):
            if options.labels_in is None and getattr(options, name) is not None:
                raise ConfigError(
                    f"{option(name)} has no effect on pairs of images: give {option('labels_in')} A or B to say which "
                    "side is label maps, or leave it out"
                )
        spec = given_classes(options)
        dontcare = dontcare_of(options, spec)
        reader = _reader(options, phases, dontcare) if options.labels_in else None
        samples: list[RawSample] = []
        notes: list[str] = []
        for phase, (first, second) in phases.items():
            listing = match_folders({"input": first, "photo": second})
            notes += require_paired(listing.orphans, options.skip_unpaired)
            for pair in listing.pairs:
                a, b = pair.input, pair.photo
                assert a is not None
                assert b is not None
                if reader is None:
                    samples.append(RawSample(pair.stem, (a, b), b, a, phase=phase))
                else:
                    maps, photo = (a, b) if options.labels_in == "A" else (b, a)
                    samples.append(RawSample(pair.stem, (a, b), photo, read=partial(reader.read, maps), phase=phase))
        return RawDataset(tuple(samples), spec, dontcare, notes=tuple(notes))


def _reader(
    options: ConversionOptions, phases: dict[str, tuple[Path, Path]], dontcare: int | None
) -> ColorReader | LabelReader:
    """What reads the side of label maps: colours of the given classes, or labels."""
    spec = given_classes(options)
    side = 0 if options.labels_in == "A" else 1
    folders = phases.get("train") or next(iter(phases.values()))
    listing = match_folders({"input": folders[0], "photo": folders[1]})
    file = listing.pairs[0].input if side == 0 else listing.pairs[0].photo
    assert file is not None
    if is_colored(file):
        if spec is None:
            raise ConfigError(
                f"{file} shows classes by colours, so their list is needed: `hdgan data palette {folders[side]} --out "
                f"{CLASS_FILE}` writes it, and {option('classes')} {CLASS_FILE} reads it"
            )
        return ColorReader(spec, str(options.classes), options.nearest)
    if options.nearest is not None:
        raise ConfigError(f"{file} has labels, not colours: leave {option('nearest')} out")
    return LabelReader(spec, str(options.classes), dontcare)


def _phases(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders A and B of each phase."""
    names = set(subfolders_of(root))
    return {
        PHASES[name[:-1].lower()]: (root / name, root / f"{name[:-1]}B")
        for name in sorted(names)
        if name.endswith("A") and name[:-1].lower() in PHASES and f"{name[:-1]}B" in names
    }


FORMAT = TrainAB()
