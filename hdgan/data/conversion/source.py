"""What a format makes of a folder: samples whose maps can be read, and the classes of their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Interval

from hdgan.config.bounds import Share
from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.data.config import Size
from hdgan.data.inspection import ProgressCallback
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError

Side = Literal["A", "B"]
Distance = Annotated[int, Interval(ge=1, le=441)]
"""Between two colours of 8 bits a channel: at most 255 * sqrt(3)."""
LineWidth = Annotated[int, Interval(ge=0, le=4096)]
DIVISOR = 1000
"""The usual divisor of instance ids, Cityscapes' own."""
_MOST_CHARACTERS = 300
"""Of a name in a message."""


@dataclass(frozen=True)
class ConversionOptions:
    """What users choose. An option at its default, None or empty, leaves the choice to the format."""

    source: Path
    """A folder, or the annotation file of a format that has one."""
    photos: Path | None = None
    """Where the photos are, if not where the format looks for them."""
    classes: Path | None = None
    """A classes.csv."""
    dontcare: str | None = None
    """The name or the label of a class whose pixels belong to no class."""
    nearest: Distance | None = None
    """How far in RGB a colour may be from that of its class."""
    background: str | None = None
    """Name of label 0, the class of pixels that no shape or segment covers."""
    stuff: tuple[str, ...] = ()
    """Classes without instances."""
    line_width: LineWidth | None = None
    """Width of lines and points in pixels; 0 leaves them out."""
    labels_in: Side | None = None
    """The side of A-to-B pairs that contains label maps."""
    skip_unpaired: bool = False
    """Leave out files without partners instead of refusing them."""
    val_fraction: Share | None = None
    """Share of the samples that becomes the phase val."""
    val_list: Path | None = None
    """File with the names of the samples of the phase val."""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class SampleMaps:
    """The maps of one sample."""

    label: np.ndarray
    """[H, W] integers."""
    ids: np.ndarray | None = None
    """Instance map [H, W] of integers, if the source has instances."""
    inexact: int = 0
    """Pixels whose colour was not exactly that of their class."""


@dataclass(frozen=True)
class EmbeddedPhoto:
    """A photo inside of an annotation file."""

    file: Path
    """The annotation file."""
    suffix: str
    """The ending of its own file, such as .jpg."""
    size: Size
    """(width, height) in pixels."""
    content: Callable[[], bytes]
    """Reads the bytes of its own file."""

    def __str__(self) -> str:
        return f"the photo in {self.file}"


@dataclass(frozen=True)
class RawSample:
    """One sample of a source."""

    stem: str
    """Its name, which its files in the converted dataset share."""
    files: tuple[Path, ...]
    """All that it is made of. If one of them changes, the sample is converted again."""
    photo: Path | EmbeddedPhoto | None
    input: Path | None = None
    """A of an A-to-B pair, which is copied like the photo."""
    read: Callable[[], SampleMaps] | None = None
    """Reads or draws its maps; None for an A-to-B pair."""
    phase: str = ""
    """Such as "train"; empty where the source does not divide its samples."""


@dataclass(frozen=True)
class RawDataset:
    """A source, opened: nothing is written yet, and the maps are not yet read."""

    samples: tuple[RawSample, ...]
    spec: DatasetSpec | None = None
    """Its classes; None for A-to-B pairs, and for label maps whose classes have no names."""
    dontcare: int | None = None
    """Label whose pixels belong to no class."""
    divisor: int = DIVISOR
    """Class of an instance id: id // divisor where id >= divisor, else the id."""
    notes: tuple[str, ...] = ()
    """What users should know, such as which files were left out."""


class SourceFormat(ABC):
    """One kind of dataset that can be converted."""

    name: ClassVar[str]
    pattern: ClassVar[str]
    """What a folder of this kind contains, for messages."""
    uses: ClassVar[frozenset[str]]
    """The options of `ConversionOptions` that have an effect on it, besides `source` and those that all formats use."""

    rank: ClassVar[int] = 0
    """If a source is of several kinds, those of the lowest rank hide the others."""

    @abstractmethod
    def fits(self, options: ConversionOptions) -> bool:
        """Whether the source is of this kind. It is quick and looks at few files."""

    @abstractmethod
    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        """Find all samples and classes.

        Raises:
            DataError: the source cannot be converted.
            ConfigError: an option does not suit the source.
        """

    def require_effect(self, options: ConversionOptions) -> None:
        """Raise ConfigError for an option that would have no effect."""
        general = {"source", "skip_unpaired", "val_fraction", "val_list"}
        for field in fields(options):
            if field.name not in general | self.uses and getattr(options, field.name) != field.default:
                raise ConfigError(
                    f"{option(field.name)} has no effect on a source of the format {self.name}: leave it out"
                )


def clipped(name: object) -> str:
    """A name from a file, as messages show it."""
    text = str(name)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def listed(names: Sequence[object], most: int = 5) -> str:
    """Some of the names, as messages list them."""
    return ", ".join(map(clipped, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
