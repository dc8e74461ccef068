"""The files of packed datasets: images are decoded, checked and scaled once, then read from memory-mapped files.

A packed folder holds `packed.json`, the index, and one safetensors file for each sample, <phase>/<stem>.safetensors.
Like all safetensors files they are little-endian. A sample is stored in one or several sizes; the tensors of size W x H
are

    label@WxH, ids@WxH   [n] uint8: zlib stream of the map [H, W], in the smallest of uint8, uint16, int32 that holds it
    input@WxH            [C, H, W] uint8, uint16 or float32
    photo@WxH            [C, H, W] as the input, [3, H, W] uint8 where photos are not packed as stored

A compressed map is some fifty times smaller and inflates in a millisecond. Photos would shrink to half and take ten.
Under the key "hdgan" the file's metadata has JSON. It repeats what the index says of the sample. It adds name, bytes
and time of each source file and the labels found there. For each tensor it has the type and shape of its content, and
the CRC-32 of its bytes, which is compared at every read. A file is opened for one read and closed, so that processes
share nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from hdgan.config.bounds import Depth
from hdgan.config.serialization import from_plain, to_plain
from hdgan.data.config import PartName, Size
from hdgan.data.image_kind import ImageKind
from hdgan.data.packed_index import REPEAT, About, Stored
from hdgan.data.pairs import Arrays
from hdgan.errors import DataError
from hdgan.files.json import parse_json
from hdgan.files.limits import require_bounded
from hdgan.files.remote import RemotePath
from hdgan.files.remote_tensors import RemoteTensors
from hdgan.files.safetensors import open_safetensors

_MAPS = ("label", "ids")
_MAP_TYPES = (np.uint8, np.uint16, np.int32)
_DEPTHS: dict[str, Depth] = {"|u1": "uint8", "<u2": "uint16", "<f4": "float32"}
_KEY = "hdgan"


def encode(sized: Mapping[Size, Mapping[PartName, np.ndarray]], about: About) -> bytes:
    """The file of a sample.

    Args:
        sized: For each (width, height) the parts: label and ids [H, W], input and photo [H, W, C].
        about: Its metadata, to which the description of the tensors is added.
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


def kinds_of(about: About) -> dict[PartName, ImageKind]:
    """Channels and types of a sample's input and photo, as far as it has them."""
    parts: tuple[PartName, ...] = ("input", "photo")
    described = {part: about.tensors.get(_name(part, about.sizes[0])) for part in parts}
    return {
        part: ImageKind(holds.shape[0], _DEPTHS[holds.type])
        for part, holds in described.items()
        if holds is not None and len(holds.shape) == 3 and holds.type in _DEPTHS
    }


def read_packed(path: Path, file: Any, about: About, parts: Sequence[PartName], size: Size) -> Arrays:
    """Read one stored size of a sample from its file, which `open_packed` has opened.

    Returns:
        label and ids [H, W], input and photo [H, W, C], those of them that `parts` names. Photo and input are views of
        the mapped file, planes first in memory.

    Raises:
        DataError: the file is damaged, or lacks a part.
    """
    arrays: Arrays = {part: _decode(path, file, _name(part, size), about) for part in parts}
    kinds = kinds_of(about)
    channels = {"photo": (kinds["photo"].channels if "photo" in kinds else 0,), "input": (about.channels,)}
    for part, array in arrays.items():
        if array.shape != (size[1], size[0], *channels.get(part, ())):
            raise DataError(f"{path}: {_name(part, size)} has shape {array.shape}; {REPEAT}")
        if part in kinds and array.dtype != kinds[part].depth:
            raise DataError(f"{path}: {_name(part, size)} is of type {array.dtype}; {REPEAT}")
    return arrays


def verify_packed(path: Path) -> About:
    """Compare all of a sample's file with its checksums.

    Returns:
        Its metadata.

    Raises:
        DataError: it is missing or damaged.
    """
    with open_packed(path) as (file, about):
        for name in about.tensors:
            _decode(path, file, name, about)
        return about


@contextmanager
def open_packed(path: Path, size: int | None = None, *, whole: bool = True) -> Iterator[tuple[Any, About]]:
    """Open a sample's file and read its metadata.

    Args:
        path: The file.
        size: Its length in bytes by the index, which saves a request for a file elsewhere.
        whole: Fetch all of a file elsewhere at once, because most of it will be read.

    Raises:
        DataError: it is missing or damaged, which may show only when its tensors are read.
    """
    try:
        with _opened(path, size, whole) as file:
            metadata = parse_json((file.metadata() or {}).get(_KEY, ""), str(path), REPEAT, DataError)
            yield file, from_plain(About, metadata, str(path), DataError)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {REPEAT}") from None
    except (ValueError, TypeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REPEAT}") from error


@contextmanager
def _opened(path: Path, size: int | None, whole: bool) -> Iterator[Any]:
    if isinstance(path, RemotePath):
        copy = path.copy_here()
        if copy is None:
            yield RemoteTensors(path, path.stat().st_size or 0 if size is None else size, REPEAT, whole=whole)
            return
        path = copy
    elif not path.exists():
        raise FileNotFoundError
    # PyTorch's tensors are views of the mapped file, NumPy's would be copies.
    with open_safetensors(path, remedy=REPEAT, error=DataError) as file:
        yield file


def _decode(path: Path, file: Any, name: str, about: About) -> np.ndarray:
    if name not in about.tensors:
        raise DataError(f"{path} has no {name}; {REPEAT}")
    holds = about.tensors[name]
    tensor = file.get_tensor(name)
    stored = tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
    if _checksum(name, holds, stored) != holds.crc32:
        raise DataError(f"{path}: {name} differs from its checksum; {REPEAT}")
    if name.partition("@")[0] not in _MAPS:
        return stored.transpose(1, 2, 0)
    height, width = holds.shape
    dtype = np.dtype(holds.type)
    length = height * width * dtype.itemsize
    require_bounded(path, length, f"a file with a map of {width}x{height} pixels")
    return np.frombuffer(_inflated(stored, length), dtype).reshape(height, width)


def _inflated(stored: np.ndarray, length: int) -> bytes:
    """The content of a zlib stream, which must have this length; no more is inflated, whatever the stream says."""
    stream = zlib.decompressobj()
    content = stream.decompress(stored.data, length + 1)
    if len(content) != length or not stream.eof:
        raise ValueError(f"a map of {length} bytes does not inflate to that length")
    return content


def _checksum(name: str, holds: Stored, stored: np.ndarray) -> int:
    """CRC-32 of a tensor's name, description and bytes."""
    return zlib.crc32(stored.data, zlib.crc32(f"{name} {holds.type} {list(holds.shape)}".encode()))


def _narrowest(values: np.ndarray) -> np.ndarray:
    """A map in the smallest type that holds its values, little-endian and contiguous."""
    low, high = int(values.min()), int(values.max())
    dtype = next(np.dtype(t) for t in _MAP_TYPES if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return np.ascontiguousarray(values, dtype.newbyteorder("<"))


def _name(part: str, size: Size) -> str:
    return f"{part}@{size[0]}x{size[1]}"
