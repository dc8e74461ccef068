"""Ways to damage a file, for hypothesis: bytes anywhere, or one part of a container under right checksums.

Bytes that are changed at random rarely come past the first checksum. So the containers that hdgan reads are taken
apart, one part is damaged, and the rest is put around it again.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

from hypothesis import strategies as st

AWKWARD: list[Any] = [
    None, True, [], {}, "", "nan", "../x", "/x", "a\\b", "\x00", "\ud800", "caf\u00e9", -1, 0, 2**31, 2**63, 10**30,
    10**400, 0.5, -1e-9, 1e308, float("nan"), float("inf"), [[]], {"": None}, [0] * 1000,
]  # fmt: skip
"""Values that a field of a file may hold and should not."""
NUMBERS = [0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
DEEP = 20_000


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Content that is cut, extended, or has some of its bytes changed, left out, repeated or replaced by a number."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["change", "number", "leave out", "insert", "repeat", "cut"])):
            case "change":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "number":
                size, order = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from(["little", "big"]))
                number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size)
                data[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
            case "leave out":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=length))
            case "repeat":
                data[at:at] = data[at : at + 64] * draw(st.integers(1, 8))
            case "cut":
                del data[at:]
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON of which one value or key is replaced, left out, or nested deeply."""
    tree = json.loads(content)
    holder: Any = {"": tree}
    key: Any = ""
    while isinstance(holder[key], (dict, list)) and holder[key] and draw(st.integers(0, 4)):
        holder = holder[key]
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    match draw(st.sampled_from(["replace", "remove", "rename", "deep", "text"])):
        case "remove":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "../x", "\ud800", "x" * 300]))] = holder.pop(key)
        case "deep":
            holder[key] = "DEEP"
        case "text":
            holder[key] = draw(st.text(max_size=20))
        case _:
            holder[key] = draw(st.sampled_from(AWKWARD))
    whole = tree if key != "" or holder.get("", tree) is tree else holder.get("")
    text = json.dumps(whole)
    return text.replace('"DEEP"', "[" * DEEP + "]" * DEEP).encode()


@st.composite
def damaged_lines(draw: st.DrawFn, content: bytes, separator: bytes = b",") -> bytes:
    """Text in lines, such as CSV, of which one field is replaced."""
    lines = [line.split(separator) for line in content.split(b"\n")]
    line = draw(st.sampled_from([line for line in lines if line]))
    at = draw(st.integers(0, len(line) - 1))
    awkward = [
        b"",
        b"nan",
        b"-inf",
        b"1e999",
        b"9" * 6000,
        b"\xff\xfe",
        b"x" * 200_000,
        b'"',
        b"../x",
        b"\x00",
        b"[" * 5000,
    ]
    line[at] = draw(st.sampled_from(awkward))
    return b"\n".join(separator.join(line) for line in lines)


@st.composite
def damaged_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """A zip archive (.npz, .pth) of which one member is damaged, left out or renamed, under a right checksum."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    chosen = draw(st.integers(0, len(members) - 1))
    compression = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", compression) as archive:
        for i, (info, data) in enumerate(members):
            name = info.filename
            if i == chosen:
                what = draw(st.sampled_from(["damage", "damage", "damage", "remove", "rename"]))
                if what == "remove":
                    continue
                name = f"../{name}" if what == "rename" else name
                data = draw(damaged_bytes(data)) if what == "damage" else data
            archive.writestr(name, data)
    return result.getvalue()


@st.composite
def damaged_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header, or the JSON that hdgan keeps in it, is damaged."""
    (length,) = struct.unpack("<Q", content[:8])
    header, tensors = content[8 : 8 + length], content[8 + length :]
    if draw(st.booleans()):
        tree = json.loads(header)
        metadata = tree["__metadata__"]
        metadata["hdgan"] = draw(damaged_json(metadata["hdgan"].encode())).decode()
        header = json.dumps(tree).encode()
    else:
        header = draw(damaged_json(header))
    return struct.pack("<Q", len(header)) + header + tensors


@st.composite
def damaged_png(draw: st.DrawFn, content: bytes) -> bytes:
    """A PNG of which one chunk is damaged, left out or repeated, under a right checksum."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = draw(st.integers(0, len(chunks) - 1))
    kind, data = chunks[chosen]
    match draw(st.sampled_from(["damage", "damage", "damage", "leave out", "repeat", "pixels"])):
        case "damage":
            chunks[chosen] = kind, draw(damaged_bytes(data)) if data else b"\x00"
        case "leave out":
            del chunks[chosen]
        case "repeat":
            chunks.insert(chosen, chunks[chosen])
        case "pixels":
            pixels = draw(damaged_bytes(zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))))
            chunks = [(kind, zlib.compress(pixels) if kind == b"IDAT" else data) for kind, data in chunks]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return content[:8] + b"".join(parts)
