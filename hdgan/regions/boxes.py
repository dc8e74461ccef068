"""Rectangles of pixels, and which of them a local operation reads for which it writes.

A span is a range of rows or of columns, [begin, end). All operations here treat rows and columns alike, so a `Reach`
speaks of one axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

Span: TypeAlias = tuple[int, int]


class Box(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def whole(height: int, width: int) -> Box:
        """All pixels of an image of this size."""
        return Box(0, height, 0, width)

    @property
    def rows(self) -> Span:
        """From the first row to the end of the rows."""
        return self.top, self.bottom

    @property
    def columns(self) -> Span:
        """From the first column to the end of the columns."""
        return self.left, self.right

    @property
    def spans(self) -> tuple[Span, Span]:
        """Of its rows and of its columns."""
        return self.rows, self.columns

    @property
    def area(self) -> int:
        """Number of pixels; 0 if it is empty."""
        return max(0, self.bottom - self.top) * max(0, self.right - self.left)

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        if not self.area or not other.area:
            return self if self.area else other
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def within(self, other: Box) -> Box:
        """What both share; it may be empty."""
        return Box(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def moved(self, down: int, right: int) -> Box:
        """The same box at another place."""
        return Box(self.top + down, self.bottom + down, self.left + right, self.right + right)

    def slices(self, of: Box) -> tuple[slice, slice]:
        """Where this box lies in an array that holds the pixels of another one."""
        return (
            slice(self.top - of.top, self.bottom - of.top),
            slice(self.left - of.left, self.right - of.left),
        )


def tiles(height: int, width: int, side: int) -> Iterator[Box]:
    """The boxes of `side` pixels a side, row by row, that cover an image; those at its end are smaller."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Box(top, min(top + side, height), left, min(left + side, width))


class Reach:
    """Which span of its input an operation reads for a span of its output, and the other way round. The identity."""

    def reads(self, span: Span, size: int) -> Span:
        """The span of an input of `size` pixels that an output's span depends on, clipped to the input."""
        return span

    def writes(self, span: Span, size: int) -> Span:
        """The span of an output of `size` pixels that depends on an input's span, clipped to the output."""
        return span


@dataclass(frozen=True)
class Sliding(Reach):
    """A convolution or pooling: pixel i of the output reads `extent` pixels of the input from i * stride - padding."""

    extent: int
    stride: int = 1
    padding: int = 0

    def reads(self, span: Span, size: int) -> Span:
        begin, end = self.unclipped(span)
        return max(begin, 0), min(end, size)

    def unclipped(self, span: Span) -> Span:
        """What is read, padding included."""
        begin, end = span
        return begin * self.stride - self.padding, (end - 1) * self.stride - self.padding + self.extent

    def writes(self, span: Span, size: int) -> Span:
        begin, end = span
        first = -((self.extent - 1 - begin - self.padding) // self.stride)
        return max(first, 0), min((end - 1 + self.padding) // self.stride + 1, size)


@dataclass(frozen=True)
class Spreading(Reach):
    """A transposed convolution: pixel i of the input adds to `extent` output pixels from i * stride - padding."""

    extent: int
    stride: int = 1
    padding: int = 0

    def reads(self, span: Span, size: int) -> Span:
        begin, end = Sliding(self.extent, self.stride, self.padding).writes(span, size)
        begin = min(begin, size - 1)  # one pixel at least, which then adds nothing
        return begin, max(end, begin + 1)

    def writes(self, span: Span, size: int) -> Span:
        return Sliding(self.extent, self.stride, self.padding).reads(span, size)


@dataclass(frozen=True)
class Padded(Reach):
    """Padding of both sides; `mode` is that of `pad2d`."""

    before: int
    after: int
    mode: str

    def index(self, i: int, size: int) -> int:
        """The pixel of the input that pixel i - `before` repeats; in mode zero the nearest."""
        if self.mode == "reflect":
            i = -i if i < 0 else i
            return 2 * (size - 1) - i if i >= size else i
        return min(max(i, 0), size - 1)

    def reads(self, span: Span, size: int) -> Span:
        begin, end = span[0] - self.before, span[1] - self.before
        inside = max(begin, 0), min(end, size)
        # Outside of the input, the index only turns at its ends, which are read together with what they repeat.
        turned = [0] * (begin < 0) + [size - 1] * (end > size)
        known = [*turned, self.index(begin, size), self.index(end - 1, size), *range(*inside)[:: max(1, size - 1)]]
        return min(known), max(known) + 1

    def writes(self, span: Span, size: int) -> Span:
        begin, end = span
        # Near a side, all that repeats it counts as written.
        last = size - self.before - self.after - 1
        return (
            0 if begin <= self.before else begin + self.before,
            size if end - 1 >= last - self.after else end + self.before,
        )


@dataclass(frozen=True)
class Nearest(Reach):
    """Nearest-neighbour enlargement of `small` pixels to `large` ones."""

    small: int
    large: int

    def sources(self, span: Span) -> np.ndarray:
        """The pixel of the input for each pixel of a span of the output, computed in float32 as PyTorch does."""
        scale = np.float32(self.small) / np.float32(self.large)
        return np.minimum((scale * np.arange(*span, dtype=np.float32)).astype(np.int64), self.small - 1)

    def reads(self, span: Span, size: int) -> Span:
        first, last = self.sources((span[0], span[0] + 1)), self.sources((span[1] - 1, span[1]))
        return int(first[0]), int(last[0]) + 1

    def writes(self, span: Span, size: int) -> Span:
        ratio = self.large / self.small
        return max(int(span[0] * ratio) - 1, 0), min(int(span[1] * ratio) + 2, size)


@dataclass(frozen=True)
class Aligned(Reach):
    """Linear interpolation from `small` to `large` pixels whose corner pixels lie on each other."""

    small: int
    large: int

    def sources(self, span: Span) -> tuple[np.ndarray, np.ndarray]:
        """For each pixel of a span of the output, the pixel of the input before it and the weight of the next one.

        Computed in float32, as PyTorch does, since the positions in a large image are only that exact.
        """
        scale = np.float32(self.small - 1) / np.float32(max(self.large - 1, 1))
        places = scale * np.arange(*span, dtype=np.float32)
        before = np.minimum(places.astype(np.int64), self.small - 1)
        return before, places - before.astype(np.float32)

    def reads(self, span: Span, size: int) -> Span:
        before, _ = self.sources(span)
        return int(before[0]), min(int(before[-1]) + 2, size)

    def writes(self, span: Span, size: int) -> Span:
        ratio = (self.large - 1) / max(self.small - 1, 1)
        return max(int((span[0] - 1) * ratio), 0), min(int(span[1] * ratio) + 2, size)
