"""The files of one sample, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hdgan.config.options import option, option_off
from hdgan.data.config import PartName, Size, SizeConfig
from hdgan.data.headers import (
    ImageKind,
    Kind,
    read_header,
    require_input,
    require_map,
    require_photo,
    shown_size,
    verify_checksums,
)
from hdgan.data.images import read_input, read_map, read_photo, read_stored_photo
from hdgan.data.transforms import Filter
from hdgan.errors import DataError

PARTS: dict[PartName, str] = {"label": "label map", "input": "input (A)", "ids": "instance map", "photo": "photo"}
"""The parts of a sample in the order in which they are read, with their names in messages."""
_MAPS: dict[PartName, Kind] = {"label": "label map", "ids": "instance map"}


Arrays = dict[PartName, Any]
"""The decoded parts of one pair, all of the same size: arrays as from `read_map`, `read_input` and
`read_stored_photo`, and an RGB photo as a Pillow image or [H, W, 3] uint8."""


def size_of(values: np.ndarray | Image.Image) -> Size:
    """(width, height) of an array [H, W] or [H, W, C], or of an image."""
    return values.size if isinstance(values, Image.Image) else (values.shape[1], values.shape[0])


@dataclass(frozen=True)
class PairHeader:
    """What the headers of a pair's files say."""

    sizes: dict[PartName, Size]
    """By part, as the part will be read."""
    kinds: dict[PartName, ImageKind] = field(default_factory=dict)
    """Channels and types of A-to-B input and photo as they are stored."""
    turned: bool = False
    """Whether an EXIF orientation turns the photo upright."""


@dataclass(frozen=True)
class Pair:
    """The files of one sample; None where the dataset has no such part.

    `stem` is the name that they share: subfolder and file name without the suffixes that distinguish the parts. It is
    always text (see `name_of` in folders.py), so it can be the name of an output and be written to any file. A layout
    that stores samples in another way has a subclass, which overrides how they are read.
    """

    stem: str
    label: Path | None = None
    input: Path | None = None
    ids: Path | None = None
    photo: Path | None = None
    stored: bool = field(default=False, kw_only=True)
    """Whether the photo is read with all channels and bits, instead of as 8-bit RGB; see `DataConfig.photo`."""

    @property
    def files(self) -> dict[PartName, Path]:
        """The files by part, in the order label, input, ids, photo."""
        return {part: path for part in PARTS if (path := getattr(self, part)) is not None}

    @property
    def first_file(self) -> Path:
        """The file by which messages name the pair."""
        return next(iter(self.files.values()))

    def split(self) -> Iterator[Pair]:
        """One pair for each file, so that a fault in one does not hide those in the others."""
        if len(set(self.files.values())) == 1:
            return iter([self])
        others: dict[str, Any] = dict.fromkeys(PARTS)
        return (replace(self, **others | {part: path}) for part, path in self.files.items())

    def read_headers(self, map_size: Size | None = None) -> PairHeader:
        """Read and check the headers of all files.

        Args:
            map_size: Size of the map or input that the photo belongs to, if the pair itself has none.

        Raises:
            DataError: a file is unreadable or unsuitable.
        """
        sizes: dict[PartName, Size] = {}
        kinds: dict[PartName, ImageKind] = {}
        turned = False
        for part, path in self.files.items():
            header = read_header(path)
            if part in ("input", "photo"):
                kinds[part] = header.kind
            if part == "input":
                require_input(path, header)
                sizes[part] = header.upright
            elif part == "photo":
                if self.stored:
                    require_input(path, header, "photo")
                else:
                    require_photo(path, header)
                sizes[part] = shown_size(header, next(iter(sizes.values()), map_size))
                turned = header.orientation != 1 and sizes[part] == header.upright
            else:
                require_map(path, header, _MAPS[part])
                sizes[part] = header.size
        return PairHeader(sizes, kinds, turned)

    def verify(self) -> None:
        """Raise DataError where a file differs from its own checksums."""
        for path in self.files.values():
            verify_checksums(path)

    def read(self, size: Size | None = None, map_size: Size | None = None) -> Arrays:
        """Read all files.

        Args:
            size: Which of several stored sizes, from `stored_size`; None takes the largest.
            map_size: As for `read_headers`.

        Raises:
            DataError: a file is unreadable or unsuitable, or the files differ in size.
        """
        arrays: Arrays = {}
        for part, path in self.files.items():
            if part == "input":
                arrays[part] = read_input(path)
            elif part == "photo":
                read = read_stored_photo if self.stored else read_photo
                arrays[part] = read(path, next(map(size_of, arrays.values()), map_size))
            else:
                arrays[part] = read_map(path, _MAPS[part])
        self.common_size({part: size_of(values) for part, values in arrays.items()})
        return arrays

    def check_labels(
        self, label: np.ndarray | None, n_labels: int | None, dontcare: int | None, *, trained: bool = False
    ) -> None:
        """Refuse a label map with labels that are neither in [0, n_labels) nor `dontcare`.

        Args:
            label: [H, W] integer, or None for a sample without.
            n_labels: number of classes; None accepts anything.
            dontcare: label of pixels that belong to no class, or None.
            trained: whether the model is already trained, so that no option changes its classes.

        Raises:
            DataError: another label occurs; the message names the file and the label.
        """
        if label is None or n_labels is None or (label.min() >= 0 and label.max() < n_labels):
            return
        outside = (label < 0) | (label >= n_labels)
        if dontcare is not None:
            outside &= label != dontcare
        if outside.any():
            wrong = np.unique(label[outside]).tolist()
            raise DataError(f"{self.label} contains {_fault(wrong, n_labels, dontcare, trained)}")

    def stored_size(self, size: SizeConfig, photo_filter: Filter) -> Size | None:
        """The stored size from which samples of `size` are made; None where only one is stored.

        Raises:
            DataError: samples of this size cannot be made from what is stored.
            ConfigError: what is stored was scaled with another filter.
        """
        return None

    def common_size(self, sizes: Mapping[PartName, Size]) -> Size:
        """The size that all parts share.

        Raises:
            DataError: two files differ in size.
        """
        (first, size), *others = sizes.items()
        for part, other in others:
            if other != size:
                files = self.files
                raise DataError(
                    f"{files[first]} is {size[0]}x{size[1]}, but {files[part]} is {other[0]}x{other[1]}; make them "
                    "the same size, or remove the pair"
                )
        return size


@dataclass(frozen=True)
class Orphan:
    """Files without all their partners; they are never used and always reported."""

    stem: str
    files: tuple[Path, ...]
    missing: tuple[tuple[str, Path, Path | None], ...]
    """For each missing part: its name, the folder that was searched, and a file there whose name differs only in upper
    and lower case, if there is one."""

    @property
    def named(self) -> tuple[Path, ...]:
        """All files that the message names."""
        return (*self.files, *(path for _, _, path in self.missing if path))

    def __str__(self) -> str:
        files = ", ".join(map(str, self.files))
        lacks = " and ".join(f"no {part} named {self.stem} in {folder}" for part, folder, _ in self.missing)
        similar = " and ".join(str(path) for _, _, path in self.missing if path)
        if similar:
            return f"{files}: {lacks}; {similar} differs only in upper and lower case: rename one of them"
        return f"{files}: {lacks}; add it, or remove the file"


@dataclass(frozen=True)
class Listing:
    """The pairs of one phase, sorted by stem, and the files that belong to none."""

    layout: str
    phase: str
    pairs: tuple[Pair, ...]
    orphans: tuple[Orphan, ...] = ()
    others: tuple[tuple[PartName, str], ...] = ()
    """Parts without images whose folder has other files, and what it has, for messages."""

    def lacks(self, root: Path | None, instances: bool) -> Iterator[str]:
        """What training on the phase needs and the dataset in `root` does not have, one line each.

        Args:
            root: for the messages.
            instances: whether the model takes instance maps.
        """
        if self.pairs[0].photo is None:
            others = self.instead_of("photo")
            yield f"{root} has no photos for phase {self.phase}{others}: training needs pairs with photos"
        if instances and self.pairs[0].ids is None:
            off = option_off("model.instances")
            others = self.instead_of("ids")
            yield f"{root} has no instance maps for phase {self.phase}{others}: add them, or train with {off}"

    def instead_of(self, part: PartName) -> str:
        """What a message adds about a part that is absent: the files that its folder has, if they are no images."""
        return next((f" ({others})" for name, others in self.others if name == part), "")


def is_far_above(label: int, other: int) -> bool:
    """Whether a label is so far above the next lower one that it is probably not a class, like 255."""
    return label > 2 * other + 16


def _listed(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")


def not_of_model(wrong: Sequence[int], n_labels: int, dontcare: int | None) -> str:
    """The message about sorted labels that are neither a class of a trained model nor its `dontcare`."""
    also = "" if dontcare is None else f" and {dontcare}, which belongs to no class"
    remedy = "map it to one of these" if len(wrong) == 1 else "map them to these"
    return f"label {_listed(wrong)}, but the model has labels 0 to {n_labels - 1}{also}: {remedy}"


def _fault(wrong: Sequence[int], n_labels: int, dontcare: int | None, trained: bool) -> str:
    """The message about sorted labels that are neither a class nor `dontcare`, with the remedy."""
    if trained:
        return not_of_model(wrong, n_labels, dontcare)
    shown = _listed(wrong)
    classes, none = option("model.n_labels"), option("data.dontcare")
    if wrong[-1] < n_labels:
        return f"label {shown}; labels start at 0: set {none} to the label that belongs to no class"
    also = f" ({none} is {dontcare})" if dontcare is not None else ""
    if len(wrong) == 1 and dontcare is None and is_far_above(wrong[0], n_labels - 1):
        remedy = f"set {none} {wrong[0]} if it belongs to no class, else {classes} {wrong[0] + 1}"
    else:
        remedy = f"set {classes} to at least {wrong[-1] + 1}, or {none} to the label that belongs to no class"
    return f"label {shown}, but {classes} is {n_labels}{also}; {remedy}"
