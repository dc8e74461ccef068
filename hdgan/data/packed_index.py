"""The index of a packed dataset, packed.json, and what the file of a sample says of itself.

Somebody else may have written both. So they are checked against dataclasses, and no name in them leads out of the
folder.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from annotated_types import Interval

from hdgan.config.bounds import Label, Side
from hdgan.config.serialization import from_plain
from hdgan.data.config import PartName, PhotoMode, Size
from hdgan.data.transforms import Filter
from hdgan.errors import ConfigError, DataError
from hdgan.files import leads_out, require_file
from hdgan.files.json import read_json
from hdgan.files.remote import is_remote

INDEX = "packed.json"
FORMAT, VERSION = "hdgan-packed", 2
_READ = (1, VERSION)  # version 1 had no `Settings.photo`
ENDING = ".safetensors"

_Bytes = Annotated[int, Interval(ge=1, le=2**63 - 1)]
_Channels = Annotated[int, Interval(ge=0, le=65536)]
_Crc = Annotated[int, Interval(ge=0, le=2**32 - 1)]
_REMOVE = "remove its folder and pack again"
REPEAT = "repeat the hdgan data pack command that made it, which rewrites what is missing or damaged"
"""The remedy for a damaged sample."""


@dataclass(frozen=True)
class Described:
    """What both index and file say about a sample.

    Attributes:
        stem: Its name: the path of its file below the phase, without the ending.
        source: Size of the files that it was made from.
        sizes: Sizes in which it is stored, the largest first.
        channels: Channels of the A-to-B input; 0 without one.
    """

    stem: str
    source: Size
    sizes: tuple[Size, ...]
    channels: _Channels

    def __post_init__(self) -> None:
        if leads_out(self.stem) or self.stem != PurePosixPath(self.stem).as_posix():
            raise ConfigError(
                f"stem is {self.stem[:60]!r}, which is not a path inside the folder of the phase; {_REMOVE}"
            )
        if not self.sizes:
            raise ConfigError(f"sizes is empty; {_REMOVE}")


@dataclass(frozen=True)
class Entry(Described):
    """What the index says about a sample; `bytes` is the length of its file."""

    bytes: _Bytes


@dataclass(frozen=True)
class Stored:
    """A tensor of a sample's file: NumPy's name of its type, its shape, and the CRC-32 of its bytes."""

    type: Literal["|u1", "<u2", "<i4", "<f4"]
    shape: tuple[Side, ...]
    crc32: _Crc = 0


@dataclass(frozen=True)
class About(Described):
    """What the file of a sample says about itself.

    Attributes:
        files: For each part the file that it was made from: name below the dataset's folder, bytes, and time of the
            last change in nanoseconds.
        labels: The labels of the source; None in files of an earlier hdgan, which did not record them.
        tensors: What each tensor holds, by its name.
    """

    files: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    labels: tuple[Label, ...] | None = None
    tensors: dict[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """The settings with which a dataset was packed; a repetition must use the same ones."""

    source: str
    layout: str
    photo_filter: Filter
    sizes: str
    photo: PhotoMode = "rgb"


@dataclass(frozen=True)
class IndexedPhase:
    """The samples of a phase, and the parts that each sample has."""

    parts: tuple[PartName, ...]
    samples: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not self.parts or not self.samples:
            raise ConfigError(f"it lists {'no samples' if self.parts else 'no parts'}; {_REMOVE}")
        stem, number = Counter(entry.stem for entry in self.samples).most_common(1)[0]
        if number > 1:
            raise ConfigError(f"it lists {stem} twice; {_REMOVE}")


@dataclass(frozen=True)
class Index:
    """The content of packed.json."""

    format: str
    version: int
    complete: bool
    settings: Settings
    phases: dict[str, IndexedPhase]

    def __post_init__(self) -> None:
        for name in self.phases:
            if leads_out(name) or "/" in name:
                raise ConfigError(f"phases lists {name[:60]!r}, which is not a folder name; {_REMOVE}")

    def paths(self, root: Path) -> set[Path]:
        """The files of all samples."""
        return {sample_path(root / name, entry.stem) for name, phase in self.phases.items() for entry in phase.samples}


def is_packed(root: Path) -> bool:
    """Whether a folder has the index of a packed dataset."""
    return (root / INDEX).is_file()


def read_index(root: Path) -> Index:
    """The index of a packed dataset.

    Raises:
        DataError: it is damaged, of another version, or its packing was not finished.
    """
    index = load_index(root)
    if not index.complete:
        raise DataError(
            f"{root} is only partly packed: repeat hdgan data pack for {index.settings.source}, which continues"
        )
    return index


def load_index(root: Path) -> Index:
    """The index, of this version, checked.

    Raises:
        DataError: it is damaged or of another version, or names a file outside of `root`.
    """
    require_file(root / INDEX, DataError)
    status = (root / INDEX).stat()
    return _load_index(root, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=4)
def _load_index(root: Path, state: tuple[int, int, int]) -> Index:
    """The index in one state of its file: a run asks for it some ten times, and 50,000 samples take seconds to read."""
    path = root / INDEX
    data = read_json(path, dict, _REMOVE, DataError)
    kind, version = data.get("format"), data.get("version")
    if kind != FORMAT or version not in _READ:
        raise DataError(
            f"{path} is of format {kind!s:.60}, version {version!s:.60}, but this hdgan reads {FORMAT}, versions "
            f"{_READ[0]} to {VERSION}: pack again into another folder"
        )
    index = from_plain(Index, data, str(path), DataError)
    require_inside(root, index.paths(root))
    return index


def sample_path(folder: Path, stem: str) -> Path:
    """The file of a sample in the folder of its phase."""
    return folder / f"{stem}{ENDING}"


def require_inside(root: Path, paths: Iterable[Path]) -> None:
    """Refuse files that a link to another folder would place outside of a packed folder.

    A link instead of a file is harmless: it is read, but only the link itself is ever replaced or removed.

    Args:
        root: The packed folder.
        paths: Files below it, by names that do not lead out.

    Raises:
        DataError: a folder on the way to one of them is such a link.
    """
    if is_remote(root):  # where links lead, only the server knows
        return
    whole = os.path.realpath(root)
    for folder in {path.parent for path in paths}:
        if not Path(os.path.realpath(folder)).is_relative_to(whole):
            raise DataError(
                f"{folder} is a link that leads out of {root}: put the folder itself there, or remove the link"
            )
