"""Folders of photos and of pictures that show classes by the colours of a palette; and finding such a palette."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hdgan.config.options import option
from hdgan.data.conversion.class_names import dontcare_of, given_classes
from hdgan.data.conversion.finding import find_folders
from hdgan.data.conversion.images_labels import first_map, open_folders
from hdgan.data.conversion.labels import ColorReader, css, is_colored, read_colors
from hdgan.data.conversion.source import ConversionOptions, RawDataset, SourceFormat, listed
from hdgan.data.folders import images_in, no_images
from hdgan.data.inspection import ProgressCallback, in_threads, silent
from hdgan.data.spec import DatasetSpec, class_name
from hdgan.errors import ConfigError, DataError

MOST_COLORS = 256
"""More colours than that are no classes, unless the user says so."""


class Colors(SourceFormat):
    """Photos and coloured label maps, paired by name."""

    name: ClassVar[str] = "colors"
    pattern: ClassVar[str] = "a folder of photos (images) and one of coloured label maps (labels)"
    rank: ClassVar[int] = 1  # the folder of annotation files may be called like one of label maps
    uses: ClassVar[frozenset[str]] = frozenset({"photos", "classes", "dontcare", "nearest"})

    def fits(self, options: ConversionOptions) -> bool:
        file = first_map(options.source)
        return file is not None and is_colored(file)

    def open(self, options: ConversionOptions, progress: ProgressCallback) -> RawDataset:
        spec = given_classes(options)
        if spec is None:
            raise ConfigError(
                f"{options.source} shows classes by colours, so their list is needed: `hdgan data palette "
                f"{options.source} --out classes.csv` writes it, and {option('classes')} classes.csv reads it"
            )
        reader = ColorReader(spec, str(options.classes), options.nearest)
        return open_folders(options, reader.read, spec, dontcare_of(options, spec))


@dataclass(frozen=True)
class CountedColors:
    """The colours of all label maps of a folder, the most frequent first."""

    spec: DatasetSpec
    """Classes named class 0, class 1, ..., with these colours."""
    pixels: tuple[int, ...]
    """Pixels of each colour."""
    left_out: int
    """Pixels of all other colours."""
    files: int
    """Label maps that were read."""


def count_colors(folder: Path, top: int | None = None, progress: ProgressCallback = silent) -> CountedColors:
    """Count the exact colours of all label maps of a dataset, or of all pictures in a folder.

    Args:
        folder: A folder whose label maps `convert_dataset` would find, or any other folder of pictures.
        top: Keep so many of the most frequent colours; None keeps all.
        progress: Called with the number of files read and their total.

    Raises:
        DataError: there are no pictures, one cannot be read, or there are more than 256 colours and `top` is None.
    """
    folders = [found.folders["label"] for found in find_folders(folder)] or [folder]
    files = sorted(file for each in folders for file in images_in(each))
    if not files:
        raise no_images(folders[0], "give the folder of the label maps")
    found, counts = np.zeros(0, np.uint32), np.zeros(0, np.int64)
    worst = (0, files[0])
    for done, (file, (colors, pixels)) in enumerate(zip(files, in_threads(_colors_of, files), strict=True), start=1):
        found, counts = _joined(found, counts, colors, pixels)
        worst = max(worst, (len(colors), file), key=lambda entry: entry[0])
        progress("colours", done, len(files))
    order = np.argsort(-counts, kind="stable")
    found, counts = found[order], counts[order]
    if top is None and len(found) > MOST_COLORS:
        raise _too_many(folder, found, counts, worst)
    kept, pixels = found[:top], counts[:top]
    palette = np.stack([kept >> 16, kept >> 8 & 255, kept & 255], axis=1).astype(np.uint8)
    spec = DatasetSpec(tuple(class_name(None, label) for label in range(len(kept))), palette)
    return CountedColors(spec, tuple(pixels.tolist()), int(counts.sum() - pixels.sum()), len(files))


def _colors_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The colours of a picture, and how many pixels each has."""
    return np.unique(read_colors(file), return_counts=True)


def _joined(*lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colours of two lists, without repetition, and the sums of their pixels."""
    found, inverse = np.unique(np.concatenate(lists[::2]), return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, inverse, np.concatenate(lists[1::2]))
    return found, sums


def _too_many(folder: Path, found: np.ndarray, counts: np.ndarray, worst: tuple[int, Path]) -> DataError:
    """The error for more colours than a dataset has classes."""
    likely = likely_classes(counts)
    shown = listed([css(int(color)) for color in found[:likely]], 4)
    cause = "is a JPEG, which changes colours" if worst[1].suffix.lower() in (".jpg", ".jpeg") else "has blurred edges"
    return DataError(
        f"{folder}: its label maps have {len(found)} colours, which cannot all be classes: {worst[1]}, with {worst[0]} "
        f"colours, probably {cause}. Export the maps again as PNG without antialiasing. If that is impossible, give "
        f"{option('top')} with the number of classes (perhaps {likely}: {shown}), and convert with "
        "`hdgan data convert --nearest`"
    )


def likely_classes(pixels: Sequence[int] | np.ndarray) -> int:
    """How many of the most frequent colours are probably classes: those before the greatest relative fall.

    Args:
        pixels: Pixels of each colour, in falling order.
    """
    head = np.asarray(pixels[: MOST_COLORS + 1], np.float64)
    return int(np.argmax(head[:-1] / head[1:])) + 1 if len(head) > 1 else len(head)


FORMAT = Colors()
