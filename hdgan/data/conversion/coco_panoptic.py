"""COCO's panoptic segmentation: a JSON file, and for each photo a PNG whose colours are the ids of its segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from hdgan.data.conversion.annotations import annotation_files, used_fields
from hdgan.data.conversion.class_names import divisor_of, dontcare_of, label_of, named_classes
from hdgan.data.conversion.finding import PhotoFinder, phase_named
from hdgan.data.conversion.labels import place_of, read_colors
from hdgan.data.conversion.source import (
    DIVISOR,
    ConversionOptions,
    RawDataset,
    RawSample,
    SampleMaps,
    SourceFormat,
    clipped,
)
from hdgan.data.folders import name_of
from hdgan.data.inspection import ProgressCallback
from hdgan.errors import DataError
from hdgan.files import leads_out
from hdgan.files.json import read_json
from hdgan.wording import count

UNLABELED = "unlabeled"
"""The class of pixels without a segment, label 0."""
_REMEDY = "download or write it again"
_Byte = Annotated[int, Interval(ge=0, le=255)]


@dataclass(frozen=True)
class CocoCategory:
    """The fields of a category that are used."""

    id: int
    name: str
    isthing: int = 0
    color: tuple[_Byte, _Byte, _Byte] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.strip())


@dataclass(frozen=True)
class CocoSegment:
    """The fields of a segment that are used."""

    id: int
    category_id: int
    iscrowd: int = 0


@dataclass(frozen=True)
class _Target:
    """What the pixels of a segment become."""

    label: int
    id: int


class CocoPanoptic(SourceFormat):
    """Photos with COCO's panoptic annotations."""

    name: ClassVar[str] = "coco-panoptic"
    pattern: ClassVar[str] = "panoptic_*.json beside a folder of PNGs of the same name"
    uses: ClassVar[frozenset[str]] = frozenset({"photos", "classes", "dontcare", "background"})

    def fits(self, options: ConversionOptions) -> bool:
        files = _files(options.source)
        return any("panoptic" in file.name.lower() or file.with_suffix("").is_dir() for file in files)

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        files = _files(options.source)
        panoptic = [file for file in files if "panoptic" in file.name.lower()] or files
        if not panoptic:
            raise DataError(f"{options.source} contains no JSON file: give the folder of panoptic_*.json")
        opened = [_CocoFile(file, options) for file in panoptic]
        categories = {category.id: category for file in opened for category in file.categories.values()}
        ordered = [categories[key] for key in sorted(categories)]
        names = list(dict.fromkeys(category.name for category in ordered))
        colors = {category.name: category.color for category in ordered}
        spec = named_classes(options, names, UNLABELED, [colors[name] for name in names])
        divisor = divisor_of(spec.n_labels, max(file.most_instances() for file in opened), DIVISOR)
        samples: list[RawSample] = []
        notes: list[str] = []
        for file in opened:
            labels = {
                category.id: label_of(spec, category.name, f"{file.path}, category {category.id}", options)
                for category in file.categories.values()
                if options.classes is None or category.id in file.used
            }
            samples += file.samples(labels, divisor, progress)
            notes += file.notes
        dontcare = dontcare_of(options, spec)
        return RawDataset(tuple(samples), spec, 0 if dontcare is None else dontcare, divisor, tuple(notes))


def _files(source: Path) -> list[Path]:
    return annotation_files(source, ".json", "*.json", "annotations/*.json")


class _CocoFile:
    """One JSON file with its folders."""

    def __init__(self, path: Path, options: ConversionOptions) -> None:
        self.path, self.options = path, options
        self.notes: list[str] = []
        table = read_json(path, dict, _REMEDY, DataError)
        for name in ("images", "annotations", "categories"):
            if not isinstance(table.get(name), list):
                raise DataError(f"{path} has no list named {name}, so it is no panoptic annotation: {_REMEDY}")
        self.categories = {
            category.id: category
            for k, entry in enumerate(table["categories"])
            for category in [used_fields(CocoCategory, entry, f"{path}, categories[{k}]", _REMEDY)]
        }
        self.photos = {
            _text(entry, "id", f"{path}, images[{k}]"): _text(entry, "file_name", f"{path}, images[{k}]")
            for k, entry in enumerate(table["images"])
        }
        self.annotations: list[tuple[str, str, tuple[CocoSegment, ...]]] = []
        for k, entry in enumerate(table["annotations"]):
            where = f"{path}, annotations[{k}]"
            segments = entry.get("segments_info") if isinstance(entry, Mapping) else None
            if not isinstance(segments, list):
                raise DataError(f"{where} has no segments_info, so it is no panoptic annotation: {_REMEDY}")
            read = tuple(
                used_fields(CocoSegment, each, f"{where}.segments_info[{j}]", _REMEDY)
                for j, each in enumerate(segments)
            )
            self.annotations.append((_text(entry, "image_id", where), _text(entry, "file_name", where), read))
            for segment in read:
                if segment.category_id not in self.categories:
                    raise DataError(
                        f"{where}: segment {segment.id} has category {segment.category_id}, which categories does not "
                        "contain: add the category, or correct the segment"
                    )
        self.used = {segment.category_id for _, _, segments in self.annotations for segment in segments}

    def most_instances(self) -> int:
        """The most segments that one category has in one image."""
        return max(
            (max(Counter(segment.category_id for segment in segments).values()) for *_, segments in self.annotations
             if segments),
            default=0,
        )  # fmt: skip

    def samples(self, labels: Mapping[int, int], divisor: int, progress: ProgressCallback) -> list[RawSample]:
        """The samples of the file; `labels` are those of the categories."""
        phase = phase_named(self.path.stem)
        pngs, photos = self._png_folder(), PhotoFinder(self._photo_folders())
        found: list[RawSample] = []
        lacking: list[DataError] = []
        for done, (image, name, segments) in enumerate(self.annotations, start=1):
            where = f"{self.path}, annotation {clipped(name)}"
            if image not in self.photos:
                raise DataError(f"{where} has the image_id {clipped(image)}, which images does not contain: {_REMEDY}")
            photo = photos.find(self.photos[image])
            if photo is None and not self.options.skip_unpaired:
                raise photos.missing(self.photos[image], where)
            if photo is None:
                lacking.append(photos.missing(self.photos[image], where))
                continue
            targets = _targets(segments, self.categories, labels, divisor, where)
            read = partial(_read, pngs / name, targets, self.path)
            stem = name_of(Path(PurePosixPath(self.photos[image])))
            found.append(RawSample(stem, (pngs / name, photo, self.path), photo, read=read, phase=phase))
            progress(f"annotations of {self.path.name}", done, len(self.annotations))
        if lacking and not found:
            raise lacking[0]
        if lacking:
            self.notes.append(f"{count(len(lacking), 'image')} without photos left out, the first: {lacking[0]}")
        unused = len(self.photos) - len({image for image, *_ in self.annotations})
        if unused:
            self.notes.append(f"{self.path}: {count(unused, 'image')} without annotations left out")
        return found

    def _png_folder(self) -> Path:
        """The folder of the PNGs."""
        if not self.annotations:
            raise DataError(f"{self.path} has no annotations: {_REMEDY}")
        name = self.annotations[0][1]
        if any(leads_out(name) for _, name, _ in self.annotations):
            raise DataError(f"{self.path} names a PNG outside of its folder: {_REMEDY}")
        parent, stem = self.path.parent, self.path.stem
        folders = [parent / stem, parent.parent / stem, parent / "panoptic", parent.parent / "panoptic", parent]
        folder = next((folder for folder in folders if (folder / name).is_file()), None)
        if folder is None:
            raise DataError(
                f"{self.path} names the PNG {clipped(name)}, which is not in {folders[0]}: put the segments' PNGs there"
            )
        return folder

    def _photo_folders(self) -> list[Path]:
        if self.options.photos is not None:
            return [self.options.photos]
        parent = self.path.parent
        name = self.path.stem.removeprefix("panoptic_")
        roots = [parent, parent.parent] if parent.name == "annotations" else [parent]
        return [folder for root in roots for folder in (root / name, root / "images" / name, root / "images", root)]


def _text(entry: object, name: str, where: str) -> str:
    """A field that is text or a whole number, as text."""
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(f"{where} has no {name}: {_REMEDY}")
    return str(value)


def _targets(
    segments: Sequence[CocoSegment],
    categories: Mapping[int, CocoCategory],
    labels: Mapping[int, int],
    divisor: int,
    where: str,
) -> dict[int, _Target]:
    """What becomes of each segment: things are numbered, while stuff and crowds have the id of their class."""
    targets: dict[int, _Target] = {}
    counts = Counter[int]()
    for segment in segments:
        label = labels[segment.category_id]
        if segment.id in targets or not 0 < segment.id < 2**24:
            reason = "appears twice" if segment.id in targets else "is not between 1 and 2^24 - 1"
            raise DataError(f"{where}: the segment id {segment.id} {reason}: {_REMEDY}")
        if categories[segment.category_id].isthing and not segment.iscrowd and label:
            targets[segment.id] = _Target(label, label * divisor + counts[label])
            counts[label] += 1
        else:
            targets[segment.id] = _Target(label, label)
    return targets


def _read(file: Path, targets: Mapping[int, _Target], listing: Path) -> SampleMaps:
    """The maps of one PNG, whose ids are red + 256 * green + 65536 * blue. 0 is void."""
    colors = read_colors(file)
    found, inverse = np.unique(colors >> 16 | (colors & 0xFF00) | (colors & 0xFF) << 16, return_inverse=True)
    inverse = inverse.reshape(colors.shape)
    of = {0: _Target(0, 0), **targets}
    strangers = [k for k, segment in enumerate(found.tolist()) if segment not in of]
    if strangers:
        mask = inverse == strangers[0]
        raise DataError(
            f"{file} has the segment id {found[strangers[0]]} ({count(int(mask.sum()), 'pixel')}, first at "
            f"{place_of(mask)}), which {listing} does not list for it: restore the PNG that belongs to the JSON file"
        )
    label = np.array([of[segment].label for segment in found.tolist()], np.int32)
    ids = np.array([of[segment].id for segment in found.tolist()], np.int64)
    return SampleMaps(label[inverse], ids[inverse])


FORMAT = CocoPanoptic()
