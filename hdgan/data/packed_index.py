"""The index of a packed dataset, packed.json, and what the file of a sample tells of itself.

Both may come from somebody else. So they are read against dataclasses, and no name in them leads out of the folder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Interval

from hdgan.config.bounds import Label, Side
from hdgan.config.options import option
from hdgan.config.serialization import from_plain
from hdgan.data.config import SizeConfig
from hdgan.data.transforms import Filter, scaled_size
from hdgan.errors import ConfigError, DataError
from hdgan.files import leads_out, require_file
from hdgan.files.json import read_json

INDEX = "packed.json"
FORMAT, VERSION = "hdgan-packed", 1
ENDING = ".safetensors"

Size = tuple[Side, Side]
"""(width, height) in pixels."""
Part = Literal["label", "input", "ids", "photo"]
PARTS: tuple[Part, ...] = get_args(Part)
_Bytes = Annotated[int, Interval(ge=1, le=2**63 - 1)]
_Channels = Annotated[int, Interval(ge=0, le=65536)]
_Crc = Annotated[int, Interval(ge=0, le=2**32 - 1)]
_REMOVE = "remove its folder and pack again"


@dataclass(frozen=True)
class Described:
    """What index and file both tell of a sample.

    Attributes:
        stem: Its name: the path of its file below the phase, without the ending.
        source: Size of the files that it was made from.
        sizes: Sizes in which it is stored, the largest first.
        channels: Channels of an A-to-B input; 0 without.
    """

    stem: str
    source: Size
    sizes: tuple[Size, ...]
    channels: _Channels

    def __post_init__(self) -> None:
        if leads_out(self.stem) or self.stem != PurePosixPath(self.stem).as_posix():
            raise ConfigError(f"stem is {self.stem[:60]!r}, which is no name below the folder of the phase; {_REMOVE}")
        if not self.sizes:
            raise ConfigError(f"sizes is empty; {_REMOVE}")


@dataclass(frozen=True)
class Entry(Described):
    """What the index tells of a sample; `bytes` is the length of its file."""

    bytes: _Bytes


@dataclass(frozen=True)
class Stored:
    """A tensor of a sample's file: NumPy's name of its type, its shape, and the CRC-32 of its bytes."""

    type: Literal["|u1", "<u2", "<i4", "<f4"]
    shape: tuple[Side, ...]
    crc32: _Crc = 0


@dataclass(frozen=True)
class About(Described):
    """What the file of a sample tells of it.

    Attributes:
        files: For each part the file that it was made from: name below the dataset's folder, bytes, and time of the
            last change in nanoseconds.
        labels: The labels of the source; None in files of an earlier hdgan, which did not note them.
        tensors: What each tensor holds, by its name.
    """

    files: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    labels: tuple[Label, ...] | None = None
    tensors: dict[str, Stored] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How a dataset was packed: what a repetition must agree with."""

    source: str
    layout: str
    photo_filter: Filter
    sizes: str


@dataclass(frozen=True)
class IndexedPhase:
    """The samples of a phase, and the parts that they all have."""

    parts: tuple[Part, ...]
    samples: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not self.parts or not self.samples:
            raise ConfigError(f"it lists {'no samples' if self.parts else 'no parts'}; {_REMOVE}")
        stems: set[str] = set()
        for entry in self.samples:
            if entry.stem in stems:
                raise ConfigError(f"it lists {entry.stem} twice; {_REMOVE}")
            stems.add(entry.stem)


@dataclass(frozen=True)
class Index:
    """All of packed.json."""

    format: str
    version: int
    complete: bool
    settings: Settings
    phases: dict[str, IndexedPhase]

    def __post_init__(self) -> None:
        for name in self.phases:
            if leads_out(name) or "/" in name:
                raise ConfigError(f"phases lists {name[:60]!r}, which is no name of a folder; {_REMOVE}")

    def paths(self, root: Path) -> set[Path]:
        """The files of all samples."""
        return {sample_path(root, name, entry.stem) for name, phase in self.phases.items() for entry in phase.samples}


@dataclass(frozen=True)
class PackedSample:
    """One sample of a packed dataset, by its index.

    Attributes:
        path: Its file.
        parts: What it holds.
        entry: What the index tells of it.
        photo_filter: What pictures were scaled with.
    """

    REPEAT: ClassVar = "repeat the hdgan data pack that made it, which writes anew what is missing or damaged"

    path: Path
    parts: tuple[Part, ...]
    entry: Entry
    photo_filter: Filter

    @property
    def source(self) -> Size:
        """Size of the files that it was made from."""
        return self.entry.source

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Sizes in which it is stored, the largest first."""
        return self.entry.sizes

    @property
    def channels(self) -> int:
        """Channels of an A-to-B input; 0 without."""
        return self.entry.channels

    def stored_for(self, size: SizeConfig, photo_filter: Filter) -> Size:
        """The stored size that samples of `size` are made from, with the same pixels as from the source files.

        Raises:
            DataError: neither what `size` scales to nor the size of the source is stored.
            ConfigError: pictures were scaled with another filter.
        """
        wanted = scaled_size(self.source, size)
        if self.source in self.sizes and (wanted not in self.sizes or photo_filter != self.photo_filter):
            return self.source
        if wanted not in self.sizes:
            stored = ", ".join(f"{width}x{height}" for width, height in self.sizes)
            raise DataError(
                f"{self.path} is packed in {stored}, but {wanted[0]}x{wanted[1]} is wanted: set "
                f"{option('stages.STAGE.size.width')} {self.sizes[0][0]}, or pack again with {wanted[0]}x{wanted[1]} "
                "too"
            )
        if photo_filter != self.photo_filter:
            raise ConfigError(
                f"{self.path} was packed with {self.photo_filter}, not {photo_filter}: set "
                f"{option('data.photo_filter')} {self.photo_filter}, or pack again"
            )
        return wanted

    def require_whole(self) -> None:
        """Raise DataError unless the file is there and as long as it was written."""
        try:
            found = self.path.stat().st_size
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist; {self.REPEAT}") from None
        except OSError as error:
            raise DataError(f"{str(self.path)[:300]} cannot be read ({error.strerror}); {self.REPEAT}") from error
        if found != self.entry.bytes:
            raise DataError(f"{self.path} has {found} bytes, but was written with {self.entry.bytes}; {self.REPEAT}")

    def require(self, about: About) -> None:
        """Raise DataError unless the file's own description agrees with the index."""
        for name in ("stem", "source", "sizes", "channels"):
            listed, found = getattr(self.entry, name), getattr(about, name)
            if listed != found:
                raise DataError(f"{self.path}: {name} is {found}, but {INDEX} says {listed}; {self.REPEAT}")


@dataclass(frozen=True)
class PackedPhase:
    """The samples of one phase by stem, and the parts that they all have."""

    parts: tuple[Part, ...]
    samples: dict[str, PackedSample]


def is_packed(root: Path) -> bool:
    """Whether a folder has the index of a packed dataset."""
    return (root / INDEX).is_file()


def read_index(root: Path) -> dict[str, PackedPhase]:
    """The phases of a packed dataset by name.

    Raises:
        DataError: the index is damaged, of another version, or of a packing that was not finished.
    """
    index = load_index(root)
    if not index.complete:
        raise DataError(
            f"{root} is not packed to its end: repeat the hdgan data pack of {index.settings.source}, which goes on"
        )
    return {
        name: PackedPhase(
            phase.parts,
            {
                entry.stem: PackedSample(
                    sample_path(root, name, entry.stem), phase.parts, entry, index.settings.photo_filter
                )
                for entry in phase.samples
            },
        )
        for name, phase in index.phases.items()
    }


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
    """The index in one state of its file: a run asks for it some ten times, and of 50,000 samples it takes seconds."""
    path = root / INDEX
    data = read_json(path, dict, _REMOVE, DataError)
    kind, version = data.get("format"), data.get("version")
    if (kind, version) != (FORMAT, VERSION):
        raise DataError(
            f"{path} is of format {kind!s:.60}, version {version!s:.60}; this hdgan reads {FORMAT}, version {VERSION}: "
            "pack again into another folder"
        )
    index = from_plain(Index, data, str(path), DataError)
    require_inside(root, index.paths(root))
    return index


def sample_path(root: Path, phase: str, stem: str) -> Path:
    """File of a sample."""
    return root / phase / f"{stem}{ENDING}"


def require_inside(root: Path, paths: Iterable[Path]) -> None:
    """Refuse files that would lie outside of a packed folder by way of a link to another folder.

    A link in the place of a file is harmless: it is read from, but replaced or removed itself.

    Args:
        root: The packed folder.
        paths: Files below it, by names that do not lead out.

    Raises:
        DataError: a folder on the way to one of them is such a link.
    """
    whole = os.path.realpath(root)
    for folder in {path.parent for path in paths}:
        if not Path(os.path.realpath(folder)).is_relative_to(whole):
            raise DataError(f"{folder} is a link out of {root}: put the folder itself there, or remove the link")
