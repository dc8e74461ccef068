"""Pictures of kinds that Pillow cannot write, as bytes made by hand: what they hold is known without any reader."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def packed(values: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows [H, W] or [H, W, C] of integers in so many bits each, every row filled up to whole bytes."""
    if bits >= 8 and bits % 8 == 0:
        return values.astype(f"{order}u{bits // 8}" if values.dtype.kind in "ui" else f"{order}f{bits // 8}").tobytes()
    digits = (values.reshape(len(values), -1, 1) >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def png(values: np.ndarray, bits: int, colour: int, palette: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG of any depth and colour type; `before` are chunks in front of its pixels."""
    rows = [b"\0" + packed(row[None], bits) for row in values]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    body = png_chunk(b"PLTE", palette) if palette else b""
    body += before + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(
    values: np.ndarray,
    bits: int,
    order: str = "<",
    *,
    photometric: int = 1,
    sample_format: int = 1,
    extra: Sequence[int] = (),
    deflate: bool = False,
    content: bytes | None = None,
    tile: bool = False,
    **tags: int,
) -> bytes:
    """A TIFF of one strip or tile; `content` are its pixels if they are not `values` in their order, tags are named
    t258."""
    height, width, *rest = values.shape
    channels = rest[0] if rest else 1
    signs = ">" if bits % 8 else order
    if content is None:
        content = packed(values, bits, signs)
    content = zlib.compress(content) if deflate else content
    fields: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [8 if deflate else 1],
        262: [photometric],
        277: [channels],
        339: [sample_format] * channels,
    }
    place = 324 if tile else 273
    fields |= {place: [0], place + 1 if tile else 279: [len(content)]}
    fields |= {322: [width], 323: [height]} if tile else {278: [height]}
    fields |= {338: list(extra)} if extra else {}
    fields |= {320: [step << 8 & 0xFFFF for step in range(2**bits)] * 3} if photometric == 3 else {}
    fields |= {int(name[1:]): [value] for name, value in tags.items()}
    behind = 8 + 2 + 12 * len(fields) + 4
    longer = {tag: struct.pack(f"{order}{len(v)}H", *v) for tag, v in fields.items() if len(v) > 2}
    fields[place] = [behind + sum(map(len, longer.values()))]
    entries, at = b"", behind
    for tag, numbers in sorted(fields.items()):
        kind = "H" if len(numbers) > 1 or tag in (258, 259, 262, 277, 339) else "L"
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(data) > 4:
            data, at = struct.pack(f"{order}L", at), at + len(data)
        entries += struct.pack(f"{order}HHL", tag, 3 if kind == "H" else 4, len(numbers)) + data.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}LH", 8, len(fields)) + entries + bytes(4)
    return mark + directory + b"".join(longer[tag] for tag in sorted(longer)) + content


def bmp(values: np.ndarray, bits: int, palette: np.ndarray) -> bytes:
    """A BMP of indices into a palette [N, 3] of RGB."""
    rows = [packed(row[None], bits) for row in values[::-1]]
    content = b"".join(row.ljust(-len(row) % 4 + len(row), b"\0") for row in rows)
    colours = b"".join(bytes([*colour[::-1], 0]) for colour in palette.tolist())
    start = 14 + 40 + len(colours)
    height, width = values.shape
    about = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, 0, len(content), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<LLL", start + len(content), 0, start) + about + colours + content


def pnm(values: np.ndarray, most: int) -> bytes:
    """A binary PGM or PPM whose greatest number is `most`."""
    height, width, *rest = values.shape
    head = f"P{6 if rest else 5} {width} {height} {most}\n".encode()
    return head + values.astype(">u2" if most > 255 else "u1").tobytes()
