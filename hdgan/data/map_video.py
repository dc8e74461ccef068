"""Videos of label or instance maps, whose numbers are exactly those that were stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hdgan.data.headers import Kind
from hdgan.data.opening import UNREADABLE, NamedArray
from hdgan.errors import DataError, HdganError
from hdgan.files import require_file
from hdgan.files.limits import require_bounded
from hdgan.files.video import video_library
from hdgan.wording import count

VIDEO_ENDINGS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".nut", ".webm"})
"""Endings, in lower case, of the files that count as videos."""
_CONTAINERS = "avi,matroska,mov,mp4,nut,webm"
"""What is opened; playlists, for example, would open other files."""
_EXACT = frozenset({"apng", "ffv1", "ffvhuff", "png", "rawvideo"})
"""Codecs that keep all numbers."""
_BYTES = {"gray": 1, "gray16le": 2, "gray16be": 2}
"""Bytes of a pixel, by FFmpeg's names for a plane of whole numbers."""


class MapVideo:
    """A video of maps in Matroska, AVI, MP4 or MOV: FFV1, PNG or uncompressed, grey of 8 or 16 bits.

    Args:
        path: of the file.
        kind: what it is, for messages.

    Attributes:
        length: number of frames.
        rate: frames per second; None if the file does not say.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: its codec or its kind of pixels does not keep the numbers, or it cannot be read.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self._kind = path, kind
        require_file(path, DataError)
        with self._opened() as (container, stream):
            context = stream.codec_context
            self._require_exact(context.name, context.pix_fmt)
            self._format, self._size = context.pix_fmt, (context.width, context.height)
            what = f"a video of {context.width}x{context.height} pixels"
            require_bounded(path, context.width * context.height * _BYTES[context.pix_fmt], what)
            self.rate: Fraction | None = stream.average_rate
            self.length = sum(packet.size > 0 for packet in container.demux(stream))
        if not self.length:
            raise DataError(f"{path} has no frames: write it again from its {kind}s")

    def frames(self, wanted: Iterable[int]) -> Iterator[NamedArray]:
        """Decode frames, [H, W] uint8 or uint16.

        Args:
            wanted: their numbers, counted from 0, which increase.

        Raises:
            DataError: the file is damaged.
        """
        with self._opened() as (container, stream):
            decoded = enumerate(container.decode(stream))
            for number in wanted:
                frame = next((frame for k, frame in decoded if k == number), None)
                if frame is None:
                    raise DataError(f"{self.path} is damaged, it ends before frame {number}: write it again")
                if (frame.format.name, (frame.width, frame.height)) != (self._format, self._size):
                    raise DataError(f"{self.path} changes its size or pixels in frame {number}: write it again")
                yield NamedArray.of(np.asarray(frame.to_ndarray()), f"{self.path}, frame {number}")

    def _require_exact(self, codec: str, pixels: str | None) -> None:
        remedy = (
            f"write it again from its {self._kind}s, for example by `ffmpeg -framerate 25 -i maps/%04d.png -c:v ffv1 "
            "-pix_fmt gray maps.mkv`, with gray16le for 16 bits"
        )
        if codec not in _EXACT:
            raise DataError(
                f"{self.path}: this video of {self._kind}s is stored by the codec {codec}, which does not keep numbers "
                f"exactly; {remedy}"
            )
        if pixels not in _BYTES:
            raise DataError(
                f"{self.path}: this video of {self._kind}s has pixels of the kind {pixels}, not gray or gray16le; "
                f"{remedy}"
            )

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The file and its stream of frames."""
        av = video_library(f"reading {self.path}")
        try:
            limits = {"format_whitelist": _CONTAINERS}
            with av.open(str(self.path), options=limits, metadata_errors="replace") as container:
                if len(container.streams.video) != 1:
                    found = count(len(container.streams.video), "video stream")
                    raise DataError(f"{self.path} has {found}: give a file with one")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise ValueError("its codec is not known")
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
                yield container, stream
        except HdganError:
            raise
        except (av.error.FFmpegError, *UNREADABLE) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.path} cannot be read as a video ({reason}): restore it, or write it again as FFV1 in Matroska"
            ) from error
