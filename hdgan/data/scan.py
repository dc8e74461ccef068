"""Refusing files of millions of tiny parts, each of which would cost Pillow time and memory."""

from __future__ import annotations

import re
import struct
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from hdgan.errors import DataError
from hdgan.wording import count

MOST_PAGES = 4096
"""Pages of a TIFF."""
_MOST_STRIPS = 2**19
MOST_TILES = 2**22
"""Strips or tiles of a TIFF that is read by windows."""
_MOST_SEGMENTS = 512  # of 64 KiB each, in front of the pixels of a JPEG
_FEW_CHUNKS, _BYTES_A_CHUNK = 4096, 1024
_PNM_HEAD = 2**16
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins, in both byte orders; those with a plus are BigTIFFs."""
_STRIPS = (273, 324)  # StripOffsets, TileOffsets


def require_few_parts(path: Path, most_strips: int = _MOST_STRIPS, content: BytesIO | None = None) -> None:
    """Raise DataError for an image with more parts than any program writes. Other faults are found when it is read.

    Args:
        path: the file.
        most_strips: strips or tiles that a TIFF may have.
        content: of the file, if it is in memory already.
    """
    with path.open("rb") if content is None else nullcontext(content) as file:
        head = file.read(8)
        if head == b"\x89PNG\r\n\x1a\n":
            what = _chunks_of_png(file, path.stat().st_size if content is None else len(content.getbuffer()))
        elif head[:3] == b"\xff\xd8\xff":
            what = _segments_of_jpeg(file)
        elif head[:4] in TIFF_MARKS:
            what = _strips_of_tiff(file, head, most_strips)
        elif re.match(rb"P[1-6fF]\s", head):
            what = _head_of_pnm(head + file.read(_PNM_HEAD))
        else:
            return
    if what:
        raise DataError(f"{path} has {what}, which no program writes: save it again, or remove it with its partners")


def _chunks_of_png(file: BinaryIO, size: int) -> str:
    most = _FEW_CHUNKS + size // _BYTES_A_CHUNK
    for _ in range(most):
        about = file.read(8)
        if len(about) < 8 or about[4:] == b"IEND":
            return ""
        file.seek(int.from_bytes(about[:4], "big") + 4, 1)
    return f"more than {count(most, 'chunk')}"


def _segments_of_jpeg(file: BinaryIO) -> str:
    file.seek(2)
    for _ in range(_MOST_SEGMENTS):
        about = file.read(4)
        if len(about) < 4 or about[0] != 0xFF or about[1] == 0xDA:  # start of the pixels
            return ""
        file.seek(max(0, int.from_bytes(about[2:], "big") - 2), 1)
    return f"more than {count(_MOST_SEGMENTS, 'segment')} before its pixels"


def _strips_of_tiff(file: BinaryIO, head: bytes, most: int) -> str:
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head[:4]
    number, entry, offset = ("Q", "HHQ8x", "Q") if big else ("H", "HHL4x", "L")
    strips, seen = 0, set[int]()
    if big:
        head += file.read(8)
    (at,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    while at and at not in seen:
        if len(seen) == MOST_PAGES:
            return f"more than {count(MOST_PAGES, 'page')}"
        seen.add(at)
        file.seek(at)
        try:
            (entries,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
            table = file.read(min(entries, 2**16) * struct.calcsize(order + entry))
            strips += sum(n for tag, _, n in struct.iter_unpack(order + entry, table) if tag in _STRIPS)
            (at,) = struct.unpack(order + offset, file.read(struct.calcsize(order + offset)))
        except struct.error:  # truncated, which the reader will find as well
            break
        if strips > most:
            return f"{strips} strips or tiles"
    return ""


def _head_of_pnm(head: bytes) -> str:
    if len(head) <= _PNM_HEAD or len(re.sub(rb"#[^\r\n]*", b"", head).split(None, 4)) >= 4:
        return ""
    return f"a head of more than {_PNM_HEAD} bytes"
