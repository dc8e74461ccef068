"""A video that is made in segments, so that work on it can be interrupted and repeated.

Finished segments are files of a folder beside the video, named after their first frame. The folder also has a list of
what the frames depend on. In the end the segments are joined, and the folder is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hdgan.config.options import option
from hdgan.errors import ConfigError, HdganError
from hdgan.files.atomic import atomic_file, remove_folder
from hdgan.files.json import read_json, write_json
from hdgan.files.video import Encoding, count_frames, encoding_video, join_videos

Span = tuple[int, int]
"""Frames from the first up to the second number, which is not among them."""
_MADE_OF = "made-of.json"


class Segments:
    """The segments of one video.

    Args:
        video: the file that they become.
        length: frames of the video.
        encoding: how they are written.
        span: frames of a segment.
    """

    def __init__(self, video: Path, length: int, encoding: Encoding, span: int) -> None:
        self.video, self.length, self._encoding, self._span = video, length, encoding, span
        self.folder = video.with_name(f"{video.name}.parts")

    def begin(self, made_of: Mapping[str, str]) -> list[Span]:
        """Create the folder, or go on with what an interrupted command has left there.

        Args:
            made_of: what the frames depend on: options and the values that a message shows.

        Returns:
            The segments that are missing.

        Raises:
            ConfigError: the folder belongs to something else, or its frames were made of something else.
            HdganError: it cannot be written.
        """
        listed = self.folder / _MADE_OF
        if not listed.is_file():
            if self.folder.exists() and not (self.folder.is_dir() and all(map(_is_hidden, self.folder.iterdir()))):
                raise ConfigError(
                    f"{self.folder} is no folder of an unfinished video: move it, or choose another {option('out')}"
                )
            write_json(listed, dict(made_of))
        before = read_json(listed, dict, f"delete the folder {self.folder}")
        for name in dict.fromkeys([*made_of, *before]):
            old, new = before.get(name, "not given"), made_of.get(name, "not given")
            if old != new:
                raise ConfigError(
                    f"the frames in {self.folder} were made with another {name}, {old} instead of {new}: repeat the "
                    "command as it was to go on with them, or delete this folder to begin anew"
                )
        return self.missing()

    def missing(self) -> list[Span]:
        """The segments that are to be made, in order."""
        found, spans = self._found(), []
        start = 0
        for first in [*sorted(found), self.length]:
            while start < first:
                stop = min(first, start - start % self._span + self._span)
                spans.append((start, stop))
                start = stop
            start = first + found.get(first, 0)
        return spans

    def write(self, spans: Sequence[Span], frames: Iterator[np.ndarray]) -> None:
        """Write segments. If the frames end early by an error or Ctrl-C, those before are kept as a shorter segment.

        Args:
            spans: some of the missing ones.
            frames: those of all these spans, [H, W, 3] uint8, one after the other.

        Raises:
            HdganError: the disk is full, or the frames raise it.
        """
        for start, stop in spans:
            frame, ended = next(frames), None  # before a file is begun
            with atomic_file(self._file(start)) as temporary, encoding_video(temporary, self._encoding) as add:
                add(frame)
                for _ in range(start + 1, stop):
                    try:
                        frame = next(frames)
                    except (HdganError, KeyboardInterrupt) as error:
                        ended = error
                        break
                    add(frame)
            if ended is not None:
                raise ended

    def join(self) -> None:
        """Write the video, and remove the folder.

        Raises:
            HdganError: segments are missing, or the video cannot be written.
        """
        if missing := self.missing():
            raise HdganError(
                f"{self.folder} has no frames {missing[0][0]} to {missing[0][1] - 1}: several processes need a folder "
                "that all of them write to; repeat the command"
            )
        with atomic_file(self.video) as temporary:
            join_videos(map(self._file, sorted(self._found())), temporary, self._encoding.rate)
        remove_folder(self.folder)

    def _found(self) -> dict[int, int]:
        """The number of frames of each finished segment, by its first frame."""
        names = (path.stem for path in self.folder.glob("*.mp4"))
        return {int(name): count_frames(self._file(int(name))) for name in names if name.isdecimal()}

    def _file(self, start: int) -> Path:
        return self.folder / f"{start:08d}.mp4"


def _is_hidden(path: Path) -> bool:
    """Whether a file is hidden, as what a killed process has begun to write."""
    return path.name.startswith(".")
