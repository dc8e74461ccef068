"""Small files that claim to be huge, and what is no file at all: each is given to its reader in a process of its own.

`python -m tests.fuzz.bombs FOLDER` prints for each what the reader said, by how much memory grew at its peak and how
long it took, as a line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdgan.checkpoints import best_step
from hdgan.commands.convert import convert
from hdgan.config.serialization import to_plain
from hdgan.data.images import read_input, read_map, read_photo
from hdgan.errors import HdganError
from hdgan.families import CRNConfig, GeneratorConfig, Pix2PixConfig, Pix2PixHD, Pix2PixHDConfig
from hdgan.families.saving import save_model
from hdgan.inference import load
from hdgan.interop.nvidia.clusters import read_nvidia
from hdgan.models.segmenter import load_segmenter
from hdgan.styles.sample import Styles
from hdgan.styles.table import FeatureTable
from hdgan.training.checkpoint import read_training_state
from hdgan.training.run_folder import load_config

GIB = 2**30
Bomb = tuple[str, Callable[[Path], object], Callable[[Path], object]]
"""Name, the function that reads it, and the function that writes it."""


def zeros(n_bytes: int) -> bytes:
    """A stream of deflate's that inflates to at least so many zeros, made of one block that is repeated."""
    step = 2**24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(step)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (n_bytes // step) + packer.flush()


def png(width: int, height: int, pixels: bytes, text: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    texts = chunk(b"zTXt", b"Comment\x00\x00" + text) if text else b""
    return b"\x89PNG\r\n\x1a\n" + header + texts + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zlib_zeros(n_bytes: int) -> bytes:
    return b"\x78\xda" + zeros(n_bytes) + bytes(4)


def tiff(width: int, height: int, strip: bytes, compression: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II" + struct.pack("<HI", 42, 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + bytes(4)


def npy_header(shape: tuple[int, ...], dtype: str = "<i4", order: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_2_0(buffer, {"descr": dtype, "fortran_order": order, "shape": shape})
    return buffer.getvalue()


def inflating_zip(path: Path, name: str, head: bytes, n_bytes: int, others: dict[str, bytes]) -> None:
    """A zip of which one member inflates to n_bytes; its checksum is wrong, as only its last byte can tell."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(n_bytes)
    size = len(head) + n_bytes // 2**24 * 2**24
    with zipfile.ZipFile(path, "w") as archive:
        for other, content in others.items():
            archive.writestr(other, content)
        at = archive.fp.tell()  # type: ignore[union-attr]
        info = zipfile.ZipInfo(name)
        info.compress_type, info.file_size, info.compress_size = 8, size, len(data)
        info.header_offset, info.CRC = at, 0
        archive.fp.write(info.FileHeader() + data)  # type: ignore[union-attr]
        archive.filelist.append(info)
        archive.start_dir = archive.fp.tell()  # type: ignore[union-attr]
        archive._didModify = True  # type: ignore[attr-defined]


def pictures() -> Iterator[Bomb]:
    def write(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    contents = {
        "2147483647 pixels a side.png": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        "40000 pixels a side.png": png(40000, 40000, zlib_zeros(40001 * 40000)),
        "60000 pixels a side.tif": tiff(60000, 60000, zlib_zeros(60000 * 60000), 8),
        "60000 pixels a side.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
        "100000 pixels a side.pgm": b"P5 100000 100000 255\n",
        "long text.png": png(1, 1, zlib.compress(b"\x00\x00"), zlib_zeros(4 * GIB)),
        "8 TiB.npy": npy_header((2**20, 2**21)) + bytes(1000),
        "by column.npy": npy_header((2**20, 2**21), order=True) + bytes(1000),
        "negative.npy": npy_header((-1, 4)) + bytes(1000),
        "long header.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 1000,
    }
    for name, content in contents.items():
        for reader in (read_map, read_photo, read_input):
            if not (name == "long text.png" and reader is not read_map):
                yield f"{reader.__name__}, {name}", reader, write(content)


NESTED = pickle.EMPTY_TUPLE + pickle.TUPLE1 * 500_000
"""A tuple in a tuple and so on, whose hash would overflow the stack."""


def pickles() -> Iterator[Bomb]:
    opcodes = {
        "memo": pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.LONG_BINPUT + struct.pack("<I", 2**27),
        "bytes": pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 2**33),
        "text": pickle.PROTO + b"\x04" + pickle.BINUNICODE8 + struct.pack("<Q", 2**33),
        "frame": pickle.PROTO + b"\x04" + pickle.FRAME + struct.pack("<Q", 2**33),
        "depth": pickle.PROTO + b"\x02" + pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999,
        "number": pickle.PROTO + b"\x02" + pickle.LONG4 + struct.pack("<i", 2**31 - 1),
        "key": pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + NESTED + pickle.NONE + pickle.SETITEM,
    }
    head = npy_header((), "|O").replace(b"\x02\x00", b"\x01\x00", 1)
    head = head[:8] + struct.pack("<H", struct.unpack("<I", head[8:12])[0]) + head[12:]
    for name, code in opcodes.items():
        content = code + pickle.STOP + bytes(64)

        def zipped(path: Path, content: bytes = content) -> None:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("archive/data.pkl", content)
                file.writestr("archive/version", "3\n")
                file.writestr("archive/byteorder", "little")

        yield f"clusters, {name}", read_nvidia, lambda path, content=content: path.write_bytes(head + content)
        yield f"weights, {name}", _convert, zipped
        yield f"training, {name}", lambda path: read_training_state(path.parent), zipped
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, {})]
    keys = pickle.PROTO + b"\x02" + pickle.EMPTY_LIST + NESTED + pickle.APPEND + pickle.STOP
    yield "weights, keys of before 1.6", _convert, lambda path: path.write_bytes(b"".join([*parts, keys, bytes(64)]))


def archives() -> Iterator[Bomb]:
    member = npy_header((2**29, 2), "<f4")
    yield "features", FeatureTable.load, lambda path: inflating_zip(path, "picture.npy", member, 4 * GIB, {})
    buffer = io.BytesIO()
    torch.save({"model.1.weight": torch.zeros(4, 3)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    storage = next(name for name in parts if name.endswith("data/0"))
    program = next(name for name in parts if name.endswith("data.pkl"))
    for name, at in (("storage", storage), ("program", program)):
        others = {part: content for part, content in parts.items() if part != at}

        def write(path: Path, at: str = at, others: dict[str, bytes] = others) -> None:
            inflating_zip(path, at, b"", 4 * GIB, others)

        yield f"weights, {name}", _convert, write
        yield f"training, {name}", lambda path: read_training_state(path.parent), write


def architectures() -> Iterator[Bomb]:
    base = Pix2PixHDConfig(n_labels=4, instances=False, generator=GeneratorConfig(4, 2, 1))
    options: list[tuple[Any, str, Any]] = [
        (base, "generator.n_blocks", 10**7),
        (base, "generator.n_downsample", 10**7),
        (base, "generator.n_enhancers", 10**6),
        (base, "generator.ngf", 10**9),
        (base, "discriminator.n_scales", 10**7),
        (base, "discriminator.n_layers", 10**7),
        (base, "n_labels", 10**30),
        (base, "encoder.n_downsample", 10**7),
        (Pix2PixConfig(), "generator.n_downs", 10**7),
        (CRNConfig(n_modules=2), "n_modules", 10**7),
        (CRNConfig(n_modules=2), "n_images", 10**7),
    ]
    for config, option, value in options:
        tree = to_plain(config)
        holder = tree
        *path, name = option.split(".")
        for part in path:
            holder = holder[part]
        assert name in holder or "n_scales" in name or "n_enhancers" in name, option
        holder[name] = value

        def write(path: Path, tree: dict[str, Any] = tree) -> None:
            model = Pix2PixHD(base)
            model.discriminator = None
            save_model(path, model)
            content = path.read_bytes()
            (length,) = struct.unpack("<Q", content[:8])
            header = json.loads(content[8 : 8 + length])
            metadata = json.loads(header["__metadata__"]["hdgan"]) | {"model": tree}
            header["__metadata__"]["hdgan"] = json.dumps(metadata)
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

        yield f"{config.family}, {option}", lambda path: load(path, device="cpu"), write


def no_files() -> Iterator[Bomb]:
    """Pipes nobody writes into, devices without an end, and links that lead to themselves."""
    made = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "loop": lambda path: path.symlink_to(path.name),
        "folder": lambda path: path.mkdir(),
    }
    for kind, make in made.items():
        for name, (file, reader) in READERS.items():
            if not (kind == "folder" and name in ("model", "weights")):  # where a folder is welcome
                yield f"{kind} as {name}/{file}", reader, make


def _convert(path: Path) -> object:
    return convert(path, path.with_name("out.safetensors"))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "map": ("x.png", read_map),
    "array": ("x.npy", read_map),
    "photo": ("x.jpg", read_photo),
    "input": ("x.tif", read_input),
    "model": ("x.safetensors", lambda path: load(path, device="cpu")),
    "weights": ("x.pth", _convert),
    "clusters": ("clusters.npy", read_nvidia),
    "features": ("features.npz", FeatureTable.load),
    "style": ("style.json", Styles.load),
    "scorer": ("scorer.safetensors", load_segmenter),
    "training": ("training.pt", lambda path: read_training_state(path.parent)),
    "config": ("config.json", lambda path: load_config(path.parent)),
    "best": ("checkpoints/best.json", lambda path: best_step(path.parent.parent)),
}


def bombs() -> Iterator[Bomb]:
    yield from pictures()
    yield from pickles()
    yield from archives()
    yield from architectures()
    yield from no_files()


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def try_one(name: str, read: Callable[[Path], object], make: Callable[[Path], object], folder: Path) -> dict[str, Any]:
    endings = {"clusters": "clusters.npy", "features": "features.npz", "training": "training.pt", "weights": "w.pth"}
    kind = name.split(",")[0]
    file = name.split("/", 1)[1] if " as " in name else endings.get(kind, name.rpartition(", ")[2])
    path = folder / (
        file if "." in Path(file).suffix and kind not in ("pix2pixhd", "pix2pix", "crn") else "m.safetensors"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before, began = peak_bytes(), time.monotonic()
    try:
        outcome = f"read: {read(path)!r:.80}"
    except HdganError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error!s:.200}"
    return {"name": name, "outcome": outcome, "growth": peak_bytes() - before, "seconds": time.monotonic() - began}


def main() -> None:
    folder = Path(sys.argv[1])
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    for number, (name, read, make) in enumerate(bombs()):
        if wanted in name:
            print(json.dumps(try_one(name, read, make, folder / str(number))), flush=True)


if __name__ == "__main__":
    main()
