"""The maps or inputs of a video's frames: folders with a file for each frame, or videos of maps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from hdgan.config.options import option
from hdgan.data.layouts import match_folders
from hdgan.data.map_video import VIDEO_ENDINGS, MapVideo
from hdgan.data.opening import NamedArray
from hdgan.data.pairs import Pair
from hdgan.errors import DataError
from hdgan.wording import count

Frame = tuple[Path | NamedArray, Path | NamedArray | None]
"""The label map or input of a frame, and its instance map."""
_NUMBER = re.compile("([0-9]+)")


class Frames(Protocol):
    """The sources of the frames of a video."""

    @property
    def length(self) -> int:
        """How many there are."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, if the sources say so."""

    def read(self, wanted: Sequence[int]) -> Iterator[Frame]:
        """The sources of frames.

        Args:
            wanted: numbers of frames, counted from 0, which increase.
        """

    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ when the files of the frames change."""


def open_frames(sources: Mapping[str, Path]) -> Frames:
    """Find the frames of a video.

    Args:
        sources: folders, or videos of maps, by the part of a `Pair` that they are: label or input, and ids. The files
            of a folder are frames in the order of their names, in which numbers count as such: 9 comes before 10.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: there is no such folder or file, a frame lacks a part, videos differ in length, or a file cannot be
            used.
    """
    for part, path in sources.items():
        if not path.exists():
            given = option("instance" if part == "ids" else part)
            raise DataError(f"{given} {path} does not exist: check the path")
        if not path.is_dir() and path.suffix.lower() not in VIDEO_ENDINGS:
            raise DataError(f"{path} is a single file: give a folder with a file for each frame, or a video of maps")
    folders = [path for path in sources.values() if path.is_dir()]
    if len(folders) == len(sources):
        return FolderFrames(sources)
    if folders:
        file = next(path for path in sources.values() if not path.is_dir())
        raise DataError(f"{folders[0]} is a folder but {file} is a video: give only folders or only videos")
    if "input" in sources:
        raise DataError(
            f"{sources['input']} is a video, but inputs are read from a folder: `ffmpeg -i VIDEO FOLDER/%06d.png` "
            "writes its frames there"
        )
    return VideoFrames(sources)


class FolderFrames:
    """Frames from folders, by the rules of `match_folders`.

    Args:
        folders: by part.

    Raises:
        DataError: a frame lacks a part.
    """

    rate = None

    def __init__(self, folders: Mapping[str, Path]) -> None:
        listing = match_folders(folders)
        if listing.orphans:
            more = f" ({count(len(listing.orphans), 'such file')})" if len(listing.orphans) > 1 else ""
            raise DataError(f"{listing.orphans[0]}{more}; a frame of a video needs all of its files")
        self._pairs = sorted(listing.pairs, key=lambda pair: _by_numbers(pair.stem))
        self.length = len(self._pairs)

    def read(self, wanted: Sequence[int]) -> Iterator[Frame]:
        return ((_source(pair), pair.ids) for pair in (self._pairs[k] for k in wanted))

    def fingerprint(self) -> str:
        return _fingerprint(path for pair in self._pairs for path in pair.files.values())


class VideoFrames:
    """Frames from videos of maps.

    Args:
        videos: by part: label, and ids.

    Raises:
        DataError: they differ in length, or cannot be read.
    """

    def __init__(self, videos: Mapping[str, Path]) -> None:
        label = MapVideo(videos["label"], "label map")
        ids = MapVideo(videos["ids"], "instance map") if "ids" in videos else None
        if ids is not None and ids.length != label.length:
            raise DataError(
                f"{label.path} has {count(label.length, 'frame')}, but {ids.path} has {count(ids.length, 'frame')}: "
                "give videos of the same frames"
            )
        self._label, self._ids = label, ids
        self.length, self.rate = label.length, label.rate

    def read(self, wanted: Sequence[int]) -> Iterator[Frame]:
        labels = self._label.frames(wanted)
        if self._ids is None:
            return ((label, None) for label in labels)
        return zip(labels, self._ids.frames(wanted), strict=True)

    def fingerprint(self) -> str:
        return _fingerprint(video.path for video in (self._label, self._ids) if video is not None)


def _source(pair: Pair) -> Path:
    source = pair.label or pair.input
    assert source is not None
    return source


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """A key that sorts the numbers in names by their value."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in _NUMBER.split(name)]


def _fingerprint(paths: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        about = path.stat()
        digest.update(f"{path.resolve()}\0{about.st_size}\0{about.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
