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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hdgan.data.config import SizeConfig
from hdgan.data.transforms import Filter, scaled_size
from hdgan.errors import ConfigError, DataError

INDEX = "packed.json"
FORMAT, VERSION = "hdgan-packed", 1
ENDING = ".safetensors"

Size = tuple[int, int]
_PARTS = ("label", "input", "ids", "photo")
_MAPS = ("label", "ids")
_MAP_TYPES = (np.uint8, np.uint16, np.int32)
_KEY = "hdgan"
_REPEAT = "repeat the hdgan data pack that made it, which writes anew what is missing or damaged"
_REMOVE = "remove its folder and pack again"


@dataclass(frozen=True)
class PackedSample:
    """What the index tells of one sample; sizes are (width, height) in pixels.

    Attributes:
        path: Its file.
        bytes: Length of the file.
        source: Size of the files that it was made from.
        sizes: Sizes in which it is stored, the largest first.
        channels: Channels of an A-to-B input; 0 without.
        photo_filter: What pictures were scaled with.
    """

    path: Path
    bytes: int
    source: Size
    sizes: tuple[Size, ...]
    channels: int
    photo_filter: Filter

    def stored_for(self, size: SizeConfig, photo_filter: Filter) -> Size:
        """The stored size that samples of `size` are made from, with the same pixels as from the source files.

        Raises:
            DataError: neither what `size` scales to nor the size of the source is stored.
            ConfigError: pictures were scaled with another filter.
        """
        wanted = scaled_size(self.source, size)
        if self.source in self.sizes and (wanted not in self.sizes or photo_filter != self.photo_filter):
            return self.source
        if wanted not in self.sizes:
            stored = ", ".join(f"{width}x{height}" for width, height in self.sizes)
            raise DataError(
                f"{self.path} is packed in {stored}, but {wanted[0]}x{wanted[1]} is wanted: set "
                f"--stages.STAGE.size.width {self.sizes[0][0]}, or pack again with {wanted[0]}x{wanted[1]} too"
            )
        if photo_filter != self.photo_filter:
            raise ConfigError(
                f"{self.path} was packed with {self.photo_filter}, not {photo_filter}: set --data.photo-filter "
                f"{self.photo_filter}, or pack again"
            )
        return wanted

    def require_whole(self) -> None:
        """Raise DataError unless the file is there and as long as it was written."""
        try:
            found = self.path.stat().st_size
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist; {_REPEAT}") from None
        if found != self.bytes:
            raise DataError(f"{self.path} has {found} bytes, but was written with {self.bytes}; {_REPEAT}")


@dataclass(frozen=True)
class PackedPhase:
    """The samples of one phase by stem, and the parts that they all have."""

    parts: tuple[str, ...]
    samples: dict[str, PackedSample]


def is_packed(root: Path) -> bool:
    """Whether a folder has the index of a packed dataset."""
    return (root / INDEX).is_file()


def read_index(root: Path) -> dict[str, PackedPhase]:
    """The phases of a packed dataset by name.

    Raises:
        DataError: the index is damaged, of another version, or of a packing that was not finished.
    """
    index = load_index(root)
    with _damage(root / INDEX, _REMOVE):
        settings = index["settings"]
        if not index["complete"]:
            raise DataError(
                f"{root} is not packed to its end: repeat the hdgan data pack of {settings['source']}, which goes on"
            )
        photo_filter = settings["photo_filter"]
        return {
            name: PackedPhase(
                tuple(phase["parts"]),
                {
                    sample["stem"]: PackedSample(
                        sample_path(root, name, sample["stem"]),
                        sample["bytes"],
                        _size(sample["source"]),
                        tuple(map(_size, sample["sizes"])),
                        sample["channels"],
                        photo_filter,
                    )
                    for sample in phase["samples"]
                },
            )
            for name, phase in index["phases"].items()
        }


def load_index(root: Path) -> dict[str, Any]:
    """The index as JSON, of this version.

    Raises:
        DataError: it is damaged or of another version.
    """
    path = root / INDEX
    with _damage(path, _REMOVE):
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = index["format"], index["version"]
    if (kind, version) != (FORMAT, VERSION):
        raise DataError(
            f"{path} is of format {kind}, version {version}; this hdgan reads {FORMAT}, version {VERSION}: pack again "
            "into another folder"
        )
    missing = {"complete", "settings", "phases"} - index.keys()
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; {_REMOVE}")
    return index


def listed_paths(root: Path, phases: Mapping[str, Any]) -> set[Path]:
    """Files of all samples that an index lists under `phases`.

    Raises:
        DataError: it is damaged.
    """
    with _damage(root / INDEX, _REMOVE):
        return {sample_path(root, name, sample["stem"]) for name in phases for sample in phases[name]["samples"]}


def sample_path(root: Path, phase: str, stem: str) -> Path:
    """File of a sample."""
    return root / phase / f"{stem}{ENDING}"


def encode(sized: Mapping[Size, Mapping[str, np.ndarray]], about: Mapping[str, Any]) -> bytes:
    """The file of a sample.

    Args:
        sized: For each (width, height) the parts: label and ids [H, W], input and photo [H, W, C].
        about: What its metadata tells of it besides, as JSON.
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
            holds = {"type": values.dtype.str, "shape": list(values.shape)}
            tensors[name], described[name] = stored, {**holds, "crc32": _checksum(name, holds, stored)}
    return save(tensors, {_KEY: json.dumps({**about, "tensors": described})})


def read_packed(sample: PackedSample, size: Size | None = None) -> dict[str, np.ndarray]:
    """Read one stored size of a sample; None takes the largest.

    Returns:
        label and ids [H, W], input and photo [H, W, C], as far as there are; photo and input are views of the mapped
        file, planes first in memory.

    Raises:
        DataError: the file is missing, truncated or damaged.
    """
    size = size or sample.sizes[0]
    sample.require_whole()
    with _opened(sample.path) as (file, about):
        return {
            part: _decode(sample.path, file, name, about["tensors"][name])
            for part in _PARTS
            if (name := _name(part, size)) in about["tensors"]
        }


def verify(path: Path) -> dict[str, Any]:
    """Compare all of a sample's file with its checksums.

    Returns:
        Its metadata.

    Raises:
        DataError: it is missing or damaged.
    """
    with _opened(path) as (file, about):
        for name, tensor in about["tensors"].items():
            _decode(path, file, name, tensor)
        return about


def _decode(path: Path, file: Any, name: str, about: dict[str, Any]) -> np.ndarray:
    stored = file.get_tensor(name).numpy()
    if _checksum(name, about, stored) != about["crc32"]:
        raise DataError(f"{path}: {name} differs from its checksum; {_REPEAT}")
    if name.partition("@")[0] not in _MAPS:
        return stored.transpose(1, 2, 0)
    height, width = about["shape"]
    dtype = np.dtype(about["type"])
    return np.frombuffer(_inflated(stored, height * width * dtype.itemsize), dtype).reshape(height, width)


def _inflated(stored: np.ndarray, length: int) -> bytes:
    """What a stream of zlib's holds, which must be of this length; no more is inflated, whatever the stream says."""
    stream = zlib.decompressobj()
    content = stream.decompress(stored.data, max(length, 0) + 1)
    if len(content) != length or not stream.eof:
        raise ValueError(f"a map of {length} bytes does not inflate to so many")
    return content


def _checksum(name: str, about: dict[str, Any], stored: np.ndarray) -> int:
    """CRC-32 of a tensor's bytes, begun with its name and what it holds."""
    return zlib.crc32(stored.data, zlib.crc32(f"{name} {about['type']} {about['shape']}".encode()))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        # PyTorch's tensors are views of the mapped file, NumPy's would be copies.
        with _damage(path, _REPEAT), safe_open(path, framework="pt") as file:
            yield file, json.loads(file.metadata()[_KEY])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {_REPEAT}") from None


@contextmanager
def _damage(path: Path, remedy: str) -> Iterator[None]:
    """Turn what damaged content raises into a DataError that names the file."""
    try:
        yield
    except (DataError, FileNotFoundError):
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); {remedy}") from error


def _narrowest(values: np.ndarray) -> np.ndarray:
    """A map in the least type that holds its values, little-endian and contiguous."""
    low, high = int(values.min()), int(values.max())
    dtype = next(np.dtype(t) for t in _MAP_TYPES if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return np.ascontiguousarray(values, dtype.newbyteorder("<"))


def _name(part: str, size: Size) -> str:
    return f"{part}@{size[0]}x{size[1]}"


def _size(values: list[int]) -> Size:
    width, height = values
    return width, height
