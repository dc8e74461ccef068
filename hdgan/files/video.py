"""Videos by PyAV, which is an optional extra: H.264 in MP4, in parts that are joined without being encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hdgan.errors import ConfigError, HdganError

VIDEO_REMEDY = 'install PyAV with `pip install -e ".[video]"` in the checkout of hdgan'
_CODEC = "libx264"
_HIGH = 720
"""Rows from which players expect the colours of BT.709 instead of BT.601."""
_BT709, _BT601 = 1, 6
"""FFmpeg's numbers of these matrices; BT.601 is that of SMPTE 170M."""
_SRGB, _LIMITED = 13, 1
"""FFmpeg's numbers of the transfer function of sRGB, and of the range from 16 to 235."""
_REORDERED = 2
"""Frames by which the order of an encoder that refers to later frames is behind. x264 has at most two."""


def has_video() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def video_library(what: str) -> ModuleType:
    """Import PyAV.

    Args:
        what: what needs it, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    if not has_video():
        raise ConfigError(f"{what} needs PyAV: {VIDEO_REMEDY}")
    return import_module("av")


def require_encoder() -> None:
    """Raise ConfigError unless videos can be written."""
    av = video_library("writing a video")
    if _CODEC not in av.codecs_available:
        raise ConfigError(f"this PyAV has no {_CODEC}, which writes H.264: {VIDEO_REMEDY}")


@dataclass(frozen=True)
class Encoding:
    """How a video is written."""

    width: int
    """Of its frames, in pixels. An odd side gets one pixel more, a copy of the last, since H.264 needs even ones."""
    height: int
    rate: Fraction
    """Frames per second."""
    crf: int
    """x264's constant rate factor, from 1 for the best quality to 51."""

    @property
    def even_size(self) -> tuple[int, int]:
        """Width and height of the video."""
        return self.width + self.width % 2, self.height + self.height % 2


@contextmanager
def encoding_video(path: Path, encoding: Encoding) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a video: H.264 of 4:2:0 in MP4. Its colours are those of BT.709 from 720 rows on, else those of BT.601.

    Args:
        path: its ending is not looked at.
        encoding: size, rate and quality.

    Yields:
        A function that adds a frame, [H, W, 3] uint8 of sRGB.

    Raises:
        ConfigError: PyAV is not installed.
        OSError: the file cannot be written.
    """
    av = video_library("writing a video")
    spaces = av.video.reformatter.Colorspace
    high = encoding.height >= _HIGH
    space = spaces.ITU709 if high else spaces.ITU601
    ranges = av.video.reformatter.ColorRange
    pad = [(0, encoding.height % 2), (0, encoding.width % 2), (0, 0)]
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(_CODEC, rate=encoding.rate)
        stream.width, stream.height = encoding.even_size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.options = {"crf": str(encoding.crf)}
        context.colorspace = _BT709 if high else _BT601
        context.color_primaries, context.color_trc, context.color_range = _BT709, _SRGB, _LIMITED
        number = 0

        def add(frame: np.ndarray) -> None:
            nonlocal number
            if frame.shape != (encoding.height, encoding.width, 3):
                raise ValueError(f"a frame of shape {frame.shape} in a video of {encoding.width}x{encoding.height}")
            rgb = av.VideoFrame.from_ndarray(np.pad(frame, pad, "edge"), format="rgb24")
            coded = rgb.reformat(
                format="yuv420p",
                src_colorspace=space,
                dst_colorspace=space,
                src_color_range=ranges.JPEG,
                dst_color_range=ranges.MPEG,
            )
            coded.pts, coded.time_base = number, 1 / encoding.rate
            number += 1
            container.mux(stream.encode(coded))

        yield add
        container.mux(stream.encode(None))


def count_frames(path: Path) -> int:
    """How many frames a video has that `encoding_video` wrote.

    Raises:
        HdganError: it cannot be read.
    """
    av = video_library(f"reading {path}")
    try:
        with av.open(str(path)) as container:
            return int(container.streams.video[0].frames)
    except (av.error.FFmpegError, IndexError) as error:
        raise HdganError(f"{path} is damaged ({error!s:.200}): delete it, so that it is made again") from error


def join_videos(parts: Iterable[Path], path: Path, rate: Fraction) -> None:
    """Join videos of one encoding. Their frames are copied as they are, and players find the index at the beginning.

    Args:
        parts: one or more that `encoding_video` wrote, in their order.
        path: the new video; its ending is not looked at.
        rate: of the encoding.

    Raises:
        OSError: the file cannot be written.
    """
    av = video_library("writing a video")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        coded = first = 0
        for part in parts:
            with av.open(str(part)) as source:
                stream = stream or container.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if not packet.size:  # the last one, which only tells the end
                        continue
                    number = first + round(packet.pts * packet.time_base * rate)
                    packet.stream, packet.time_base, packet.duration = stream, 1 / rate, 1
                    packet.pts, packet.dts = number, coded - _REORDERED
                    container.mux(packet)
                    coded += 1
            first = coded
