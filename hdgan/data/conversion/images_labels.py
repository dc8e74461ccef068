"""Folders of photos and of label maps whose pixels are labels, perhaps with instance maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from hdgan.config.options import option
from hdgan.data.conversion.class_names import dontcare_of, given_classes
from hdgan.data.conversion.finding import FoundFolders, find_folders, pair_files, require_paired
from hdgan.data.conversion.labels import LabelReader, is_colored
from hdgan.data.conversion.source import ConversionOptions, RawDataset, RawSample, SampleMaps, SourceFormat, listed
from hdgan.data.folders import LABEL_FOLDERS, PHOTO_FOLDERS, images_in
from hdgan.data.images import read_map
from hdgan.data.inspection import ProgressCallback
from hdgan.data.pairs import Pair
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError

Read = Callable[[Path], SampleMaps]


class ImagesLabels(SourceFormat):
    """Photos and label maps, paired by name."""

    name: ClassVar[str] = "images-labels"
    pattern: ClassVar[str] = "a folder of photos (images) and one of label maps (labels)"
    rank: ClassVar[int] = 1  # the folder of annotation files may be called like one of label maps
    uses: ClassVar[frozenset[str]] = frozenset({"photos", "classes", "dontcare"})

    def fits(self, options: ConversionOptions) -> bool:
        file = first_map(options.source)
        return file is not None and not is_colored(file)

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        file = first_map(options.source)
        if file is not None and is_colored(file):
            raise DataError(
                f"{file} has several channels, so it shows classes by colours: convert with {option('format')} colors"
            )
        spec = given_classes(options)
        dontcare = dontcare_of(options, spec)
        reader = LabelReader(spec, str(options.classes), dontcare)
        return open_folders(options, reader.read, spec, dontcare)


def first_map(root: Path) -> Path | None:
    """A label map of the source, by which its kind is recognised; None where there are no folders of label maps."""
    for found in find_folders(root) if root.is_dir() else []:
        file = min(images_in(found.folders["label"]), default=None)
        if file is not None:
            return file
    return None


def open_folders(options: ConversionOptions, read: Read, spec: DatasetSpec | None, dontcare: int | None) -> RawDataset:
    """Pair the files of all phases.

    Args:
        options: `source`, `photos` and `skip_unpaired` are used.
        read: Reads a label map.
        spec: As of the dataset.
        dontcare: As of the dataset.

    Raises:
        DataError: the folders are not there, or files have no partners.
    """
    phases = find_folders(options.source, options.photos)
    if not phases:
        raise DataError(
            f"{options.source} has no folder of label maps: name it {listed(LABEL_FOLDERS, 3)}, and that of the photos "
            f"{listed(PHOTO_FOLDERS, 3)}, or name them train_label and train_img"
        )
    samples: list[RawSample] = []
    notes: list[str] = []
    for found in phases:
        listing = pair_files(found)
        notes += require_paired(listing.orphans, options.skip_unpaired)
        samples += [_sample(pair, found, read) for pair in listing.pairs]
    return RawDataset(tuple(samples), spec, dontcare, notes=tuple(notes))


def _sample(pair: Pair, found: FoundFolders, read: Read) -> RawSample:
    assert pair.label is not None
    files = tuple(pair.files.values())
    return RawSample(pair.stem, files, pair.photo, read=partial(_read, read, pair), phase=found.phase)


def _read(read: Read, pair: Pair) -> SampleMaps:
    assert pair.label is not None
    maps = read(pair.label)
    if pair.ids is None:
        return maps
    ids = read_map(pair.ids, "instance map")
    if ids.shape != maps.label.shape:
        (height, width), (own, other) = maps.label.shape, ids.shape
        raise DataError(
            f"{pair.label} is {width}x{height}, but {pair.ids} is {other}x{own}: make them the same size, or remove "
            "the sample"
        )
    return SampleMaps(maps.label, ids, maps.inexact)


FORMAT = ImagesLabels()
