"""Where computed images lie: in memory while there is room, else in files of a scratch folder."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from hdgan.errors import HdganError
from hdgan.regions.boxes import Box

CPU = torch.device("cpu")


class InMemory:
    """An image in memory, its channels last.

    Args:
        shape: [B, …, H, W].
        dtype: of its pixels.
        device: to which a box is read.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device = CPU) -> None:
        self._device = device
        format = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        self._pixels = torch.empty(tuple(shape), dtype=dtype, memory_format=format)

    def read(self, box: Box) -> Tensor:
        """The pixels of a box; a view, where they are on the device already."""
        return self._place(box).to(self._device)

    def write(self, box: Box, pixels: Tensor) -> None:
        """Keep the pixels of a box."""
        self._place(box).copy_(pixels)

    def _place(self, box: Box) -> Tensor:
        return self._pixels[..., slice(*box.rows), slice(*box.columns)]


class OnDisk:
    """An image in a file without a name, which the system deletes when nobody has it open any more.

    Args:
        shape: [B, C, H, W] or [B, H, W], with one image.
        dtype: of its pixels.
        folder: of the file.
        device: to which a box is read.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, folder: Path, device: torch.device = CPU) -> None:
        self._device = device
        batch, *channels, height, width = shape
        assert batch == 1
        self._channels, self._width, self._dtype = channels, width, dtype
        self._pixel = math.prod(channels) * dtype.itemsize
        self._folder = folder
        # Space is taken at once: a full disk is noticed before it is written to, not in the middle.
        with _naming(folder):
            self._file = tempfile.TemporaryFile(dir=folder, prefix="hdgan-", buffering=0)  # noqa: SIM115
            os.posix_fallocate(self._file.fileno(), 0, height * width * self._pixel)

    def read(self, box: Box) -> Tensor:
        """The pixels of a box."""
        rows, columns = box.bottom - box.top, box.right - box.left
        pixels = torch.empty(rows * columns * math.prod(self._channels), dtype=self._dtype)
        view = pixels.view(torch.uint8).numpy().data
        for begin, end, offset in self._runs(box):
            with _naming(self._folder):
                got = os.preadv(self._file.fileno(), [view[begin:end]], offset)
            if got != end - begin:
                raise HdganError(f"{self._folder}: a scratch file was cut off: was the disk removed?")
        pixels = pixels.view(rows, columns, *self._channels).to(self._device)
        return pixels.movedim(2, 0)[None] if self._channels else pixels[None]

    def write(self, box: Box, pixels: Tensor) -> None:
        """Keep the pixels of a box."""
        rows = pixels[0].movedim(0, 2) if self._channels else pixels[0]
        flat = rows.to("cpu", self._dtype).contiguous().flatten()
        view = flat.view(torch.uint8).numpy().data
        for begin, end, offset in self._runs(box):
            with _naming(self._folder):
                while begin < end:
                    written = os.pwrite(self._file.fileno(), view[begin:end], offset)
                    begin, offset = begin + written, offset + written

    def _runs(self, box: Box) -> list[tuple[int, int, int]]:
        """Parts of a buffer with the pixels of a box, from and to, and where they lie in the file."""
        length = (box.right - box.left) * self._pixel
        if box.right - box.left == self._width:
            length *= box.bottom - box.top
            return [(0, length, box.top * self._width * self._pixel)] if length else []
        return [
            (k * length, (k + 1) * length, (row * self._width + box.left) * self._pixel)
            for k, row in enumerate(range(*box.rows))
        ]


class Accounted:
    """An image of a rehearsal, which has no pixels."""

    def read(self, box: Box) -> Tensor:
        raise AssertionError("a rehearsal reads no pixels")

    def write(self, box: Box, pixels: Tensor) -> None:
        raise AssertionError("a rehearsal writes no pixels")


class RegionStorage:
    """Keeps images in memory up to a limit, and beyond it in files.

    Args:
        limit: bytes that may be in memory.
        folder: of the files.
        rehearsal: only count the bytes.
        device: on which the images are computed.
    """

    def __init__(self, limit: int, folder: Path, rehearsal: bool = False, device: torch.device = CPU) -> None:
        self.limit, self.folder, self._rehearsal, self._device = limit, folder, rehearsal, device
        self.in_memory = self.on_disk = 0
        self.most_on_disk = 0
        """The most bytes that were in files at the same time."""

    def allocate(self, shape: Sequence[int], dtype: torch.dtype) -> InMemory | OnDisk | Accounted:
        """Room for an image, which ends with the object."""
        size = math.prod(shape) * dtype.itemsize
        fits = self.in_memory + size <= self.limit
        held: InMemory | OnDisk | Accounted
        if self._rehearsal:
            held = Accounted()
        elif fits:
            held = InMemory(shape, dtype, self._device)
        else:
            held = OnDisk(shape, dtype, self.folder, self._device)
        if fits:
            self.in_memory += size
        else:
            self.on_disk += size
            self.most_on_disk = max(self.most_on_disk, self.on_disk)
        weakref.finalize(held, self._freed, size, fits)
        return held

    def _freed(self, size: int, in_memory: bool) -> None:
        if in_memory:
            self.in_memory -= size
        else:
            self.on_disk -= size


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn errors of the system into one that names the folder."""
    try:
        yield
    except OSError as error:
        raise HdganError(
            f"{folder}: a scratch file cannot be written or read ({error.strerror}): choose another --scratch folder, "
            "or give more --max-memory"
        ) from error
