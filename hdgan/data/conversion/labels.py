"""Reading the label maps of a source: labels as they are, or the colours of a palette."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hdgan.config.options import option
from hdgan.data.conversion.source import SampleMaps, listed
from hdgan.data.headers import read_header
from hdgan.data.images import read_input, read_map
from hdgan.data.spec import DatasetSpec
from hdgan.errors import DataError
from hdgan.wording import count

_AT_ONCE = 2**14
"""Colours that are compared with the palette at a time."""


def read_colors(file: Path) -> np.ndarray:
    """Read the colours of a picture.

    Grey counts as a colour, and a palette is looked up. An opacity is dropped if it is the same everywhere.

    Returns:
        [H, W] uint32: red * 65536 + green * 256 + blue.

    Raises:
        DataError: the file is unreadable, its opacity varies, or it has more than 8 bits or other channels.
    """
    values = read_input(file)
    channels = values.shape[2]
    if values.dtype != np.uint8 or channels > 4:
        raise DataError(
            f"{file} has {count(channels, 'channel')} of {values.dtype}: save the colours of classes as RGB of 8 bits "
            "per channel"
        )
    if channels in (2, 4):
        if values[..., -1].min() != values[..., -1].max():
            raise DataError(f"{file} is transparent in places, which hides colours: save it as RGB without opacity")
        values = values[..., :-1]
    wide = np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def css(code: int) -> str:
    """A colour of `read_colors` as #rrggbb."""
    return f"#{code:06x}"


def is_colored(file: Path) -> bool:
    """Whether a picture shows classes by colours: it has several channels."""
    return read_header(file).channels > 1


def place_of(mask: np.ndarray) -> str:
    """The first pixel of a mask [H, W], as messages name it."""
    y, x = np.unravel_index(int(mask.argmax()), mask.shape)
    return f"x {x}, y {y}"


@dataclass(frozen=True)
class ColorReader:
    """Reads pictures whose colours are classes.

    Args:
        spec: The classes; their colours must differ.
        name: What messages call the list of classes.
        nearest: How far a colour may be from that of its class; None requires the exact colour.
    """

    spec: DatasetSpec
    name: str
    nearest: int | None = None
    _labels: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels = np.full(2**24, -1, np.int16 if self.spec.n_labels < 2**15 else np.int32)
        for label, color in enumerate(self.spec.palette.astype(np.int64) @ [65536, 256, 1]):
            if labels[color] >= 0:
                first, second = self.spec.classes[labels[color]], self.spec.classes[label]
                raise DataError(
                    f"{self.name}: {first} and {second} both have the colour {css(int(color))}: give each class the "
                    "colour that it has in the label maps"
                )
            labels[color] = label
        object.__setattr__(self, "_labels", labels)

    def read(self, file: Path) -> SampleMaps:
        """Read one picture.

        Raises:
            DataError: it is unreadable, or has a colour that no class has.
        """
        colors = read_colors(file)
        label = self._labels[colors]
        unknown = label < 0
        n = int(unknown.sum())
        if not n:
            return SampleMaps(label)
        found, inverse, counts = np.unique(colors[unknown], return_inverse=True, return_counts=True)
        if self.nearest is None:
            raise self._unknown(file, found, counts, unknown, "")
        nearest, distances = self._nearest(found)
        if distances.max() > self.nearest:
            far = distances > self.nearest
            place = unknown.copy()
            place[unknown] = far[inverse]
            raise self._unknown(file, found[far], counts[far], place, f" within a distance of {self.nearest}")
        label[unknown] = nearest[inverse]
        return SampleMaps(label, inexact=n)

    def _nearest(self, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For colours [n], the label of the nearest class and its Euclidean distance in RGB."""
        channels = np.stack([colors >> 16 & 255, colors >> 8 & 255, colors & 255], axis=1).astype(np.int64)
        labels, distances = [], []
        for begin in range(0, len(channels), _AT_ONCE):
            part = channels[begin : begin + _AT_ONCE, None] - self.spec.palette[None].astype(np.int64)
            squares = (part**2).sum(axis=2)
            labels.append(squares.argmin(axis=1))
            distances.append(np.sqrt(squares.min(axis=1)))
        return np.concatenate(labels), np.concatenate(distances)

    def _unknown(self, file: Path, colors: np.ndarray, counts: np.ndarray, where: np.ndarray, near: str) -> DataError:
        order = np.argsort(counts)[::-1]
        shown = listed([f"{css(int(colors[k]))} ({count(int(counts[k]), 'pixel')})" for k in order], 3)
        remedy = f"add {'it' if len(colors) == 1 else 'them'} to the file"
        if near or len(colors) > len(self.spec.classes):
            remedy += ", or export the maps again as PNG without antialiasing"
        larger = f"a larger {option('nearest')}" if near else f"{option('nearest')} to accept similar colours"
        remedy += f", or give {larger}"
        return DataError(
            f"{file}: {count(len(colors), 'colour')} that no class of {self.name} has{near}: {shown}, first at "
            f"{place_of(where)}; {remedy}"
        )


@dataclass(frozen=True)
class LabelReader:
    """Reads label maps whose pixels are labels.

    Args:
        spec: The classes; None accepts any label.
        name: What messages call the list of classes.
        dontcare: A further label that is allowed.
    """

    spec: DatasetSpec | None
    name: str
    dontcare: int | None

    def read(self, file: Path) -> SampleMaps:
        """Read one map.

        Raises:
            DataError: it is unreadable, or has a label that no class has.
        """
        label = read_map(file)
        most = np.iinfo(np.uint16).max if self.spec is None else self.spec.n_labels - 1
        outside = (label < 0) | (label > most)
        if self.dontcare is not None:
            outside &= label != self.dontcare
        if outside.any():
            values, counts = np.unique(label[outside], return_counts=True)
            shown = listed([f"{v} ({count(int(n), 'pixel')})" for v, n in zip(values, counts, strict=True)], 3)
            classes = "labels are numbers from 0 to 65535" if self.spec is None else f"{self.name} ends at {most}"
            raise DataError(
                f"{file}: label {shown}, first at {place_of(outside)}, but {classes}: add the class, or give "
                f"{option('dontcare')} for a label of no class"
            )
        return SampleMaps(label)
