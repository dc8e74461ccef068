"""Packed datasets: every picture decoded, checked and scaled once, then read straight from memory-mapped files.

A packed folder holds `packed.json`, the index, and one safetensors file for each sample, <phase>/<stem>.safetensors.
Files are little-endian, as safetensors is on every machine. A sample is stored in one or several sizes; the tensors of
size W x H are

    label@WxH, ids@WxH   [n] uint8: zlib's stream of the map [H, W] of the least of uint8, uint16, int32 that holds it
    input@WxH            [C, H, W] uint8, uint16 or float32
    photo@WxH            [3, H, W] uint8

Maps shrink some fifty times and inflate in a millisecond; photos would shrink to half and take ten. Under the key
"hdgan" the file's metadata has JSON: what the index tells of the sample; name, bytes and time of each source file, and
the labels found there; and for each tensor the type and shape of what it holds and the CRC-32 of its bytes, which is
compared whenever it is read.
Files are opened for one read and closed, so that nothing has to be shared between processes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hdgan.config.serialization import from_plain, to_plain
from hdgan.data.packed_index import About, PackedSample, Size, Stored
from hdgan.errors import DataError
from hdgan.files import require_file
from hdgan.files.json import parse_json
from hdgan.files.limits import require_bounded

_MAPS = ("label", "ids")
_MAP_TYPES = (np.uint8, np.uint16, np.int32)
_KEY = "hdgan"


def encode(sized: Mapping[Size, Mapping[str, np.ndarray]], about: About) -> bytes:
    """The file of a sample.

    Args:
        sized: For each (width, height) the parts: label and ids [H, W], input and photo [H, W, C].
        about: What its metadata tells of it; the description of the tensors is added.
    """
    tensors, described = {}, {}
    for size, parts in sized.items():
        for part, values in parts.items():
            if part in _MAPS:
                values = _narrowest(values)
                stored = np.frombuffer(zlib.compress(values.data), np.uint8)
            else:
                values = stored = np.ascontiguousarray(values.transpose(2, 0, 1))
            name = _name(part, size)
            holds = Stored(values.dtype.str, values.shape)
            tensors[name], described[name] = stored, replace(holds, crc32=_checksum(name, holds, stored))
    return save(tensors, {_KEY: json.dumps(to_plain(replace(about, tensors=described)))})


def read_packed(sample: PackedSample, size: Size | None = None) -> dict[str, np.ndarray]:
    """Read one stored size of a sample; None takes the largest.

    Returns:
        label and ids [H, W], input and photo [H, W, C], as far as there are; photo and input are views of the mapped
        file, planes first in memory.

    Raises:
        DataError: the file is missing, truncated, damaged, or not the one that the index tells of.
    """
    size = size or sample.sizes[0]
    with _opened(sample.path) as (file, about):
        sample.require(about)
        arrays: dict[str, np.ndarray] = {
            part: _decode(sample.path, file, _name(part, size), about) for part in sample.parts
        }
        for part, array in arrays.items():
            channels = {"photo": 3, "input": sample.channels}.get(part)
            if array.shape != (size[1], size[0], *([channels] if channels else [])):
                raise DataError(f"{sample.path}: {_name(part, size)} has shape {array.shape}; {sample.REPEAT}")
        return arrays


def require_listed(sample: PackedSample) -> None:
    """Raise DataError unless a sample's file is there, and its header tells the same of it as the index."""
    with _opened(sample.path) as (_, about):
        sample.require(about)


def verify(path: Path) -> About:
    """Compare all of a sample's file with its checksums.

    Returns:
        Its metadata.

    Raises:
        DataError: it is missing or damaged.
    """
    with _opened(path) as (file, about):
        for name in about.tensors:
            _decode(path, file, name, about)
        return about


def _decode(path: Path, file: Any, name: str, about: About) -> np.ndarray:
    if name not in about.tensors:
        raise DataError(f"{path} lacks {name}; {PackedSample.REPEAT}")
    holds = about.tensors[name]
    stored = file.get_tensor(name).numpy()
    if _checksum(name, holds, stored) != holds.crc32:
        raise DataError(f"{path}: {name} differs from its checksum; {PackedSample.REPEAT}")
    if name.partition("@")[0] not in _MAPS:
        return stored.transpose(1, 2, 0)
    height, width = holds.shape
    dtype = np.dtype(holds.type)
    length = height * width * dtype.itemsize
    require_bounded(path, length, f"a file with a map of {width}x{height} pixels")
    return np.frombuffer(_inflated(stored, length), dtype).reshape(height, width)


def _inflated(stored: np.ndarray, length: int) -> bytes:
    """What a stream of zlib's holds, which must be of this length; no more is inflated, whatever the stream says."""
    stream = zlib.decompressobj()
    content = stream.decompress(stored.data, length + 1)
    if len(content) != length or not stream.eof:
        raise ValueError(f"a map of {length} bytes does not inflate to so many")
    return content


def _checksum(name: str, holds: Stored, stored: np.ndarray) -> int:
    """CRC-32 of a tensor's bytes, begun with its name and what it holds."""
    return zlib.crc32(stored.data, zlib.crc32(f"{name} {holds.type} {list(holds.shape)}".encode()))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, About]]:
    if not path.exists():
        raise DataError(f"{path} does not exist; {PackedSample.REPEAT}")
    require_file(path, DataError)
    try:
        # PyTorch's tensors are views of the mapped file, NumPy's would be copies.
        with safe_open(path, framework="pt") as file:
            metadata = parse_json((file.metadata() or {}).get(_KEY, ""), str(path), PackedSample.REPEAT, DataError)
            yield file, from_plain(About, metadata, str(path), DataError)
    except (SafetensorError, OSError, ValueError, TypeError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); {PackedSample.REPEAT}") from error


def _narrowest(values: np.ndarray) -> np.ndarray:
    """A map in the least type that holds its values, little-endian and contiguous."""
    low, high = int(values.min()), int(values.max())
    dtype = next(np.dtype(t) for t in _MAP_TYPES if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return np.ascontiguousarray(values, dtype.newbyteorder("<"))


def _name(part: str, size: Size) -> str:
    return f"{part}@{size[0]}x{size[1]}"
