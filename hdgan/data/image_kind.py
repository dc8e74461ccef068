"""The kind of the photos of a dataset: how many channels they have, and how deep these are."""

from __future__ import annotations

from typing import NamedTuple

from hdgan.config.bounds import Depth
from hdgan.errors import DataError
from hdgan.wording import count


class ImageKind(NamedTuple):
    """What all photos of a dataset have in common."""

    channels: int
    depth: Depth

    def __str__(self) -> str:
        depth = {"uint8": "8 bits", "uint16": "16 bits"}.get(self.depth, self.depth)
        return f"{count(self.channels, 'channel')} of {depth}"


RGB = ImageKind(3, "uint8")
"""Of photos that are not read as stored."""


def photos_differ(photo: object, kind: ImageKind, other: object, others: ImageKind) -> DataError:
    """The error that a photo is of another kind than the others; `photo` and `other` are their names."""
    return DataError(f"{photo} has {kind}, but {other} has {others}; save all photos alike")
