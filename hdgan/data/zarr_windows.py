"""Zarr arrays and OME-zarr images, of which those chunks are decoded that a window needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hdgan.data.arrays import require_numbers
from hdgan.data.headers import Header, mode_of_numbers
from hdgan.data.opening import UNREADABLE, damaged
from hdgan.data.tiles import StoredImage, TiledImage
from hdgan.errors import DataError
from hdgan.files import leads_out
from hdgan.files.json import read_json
from hdgan.files.limits import require_bounded
from hdgan.files.remote import is_remote
from hdgan.files.slides import slides

_PLANE = ("y", "x", "c")
"""The axes of one plane with its channels."""
_ARRAY, _GROUP, _EITHER = ".zarray", ".zgroup", "zarr.json"
"""Metadata of format 2, and the file of format 3."""
_LOSSLESS = frozenset(
    {"adler32", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "endian", "fletcher32", "gzip", "jenkins_lookup3",
     "lz4", "lzma", "sharding_indexed", "shuffle", "transpose", "zlib", "zstd"}
)  # fmt: skip
"""Codecs that keep integers exactly."""
_ROUNDING = frozenset({"astype", "bitround", "fixedscaleoffset", "quantize"})
"""Codecs that may not. All others are refused, for some of them run code that an array contains."""


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a zarr array or group on this machine, by its ending or its metadata."""
    if is_remote(path):
        return False
    known = (_ARRAY, _GROUP, _EITHER)
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in known))


def open_zarr(path: Path) -> StoredImage:
    """Open an array [H, W] or [H, W, C], or the full resolution of an OME-zarr image.

    Metadata that a group has consolidated are not used: those of the array itself are checked before zarr reads them.

    Raises:
        ConfigError: zarr is not installed.
        DataError: several planes, unsuitable numbers, codecs that are not known, chunks that take more memory than
            `hdgan.files.limits` allows, or damage.
    """
    zarr = slides("zarr", f"reading {path}")
    try:
        folder, axes = _full_resolution(path) if _is_group(path) else (path, None)
        metadata = _metadata(folder)
        codecs = set(_codecs(metadata))
        if unknown := sorted(codecs - _LOSSLESS - _ROUNDING):
            raise DataError(
                f"{path} is stored by the zarr codec {unknown[0]!r:.100}, which is not read: store it by zstd"
            )
        array = zarr.open_array(str(folder), mode="r")
        return _stored(path, array, axes or _axes(metadata, array.ndim), sorted(codecs & _ROUNDING))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _is_group(path: Path) -> bool:
    if (path / _EITHER).is_file():
        return bool(read_json(path / _EITHER, dict, error=DataError).get("node_type") == "group")
    return (path / _GROUP).is_file()


def _full_resolution(path: Path) -> tuple[Path, list[str]]:
    """The folder of the first array of an OME-zarr image, and its axes."""
    if (path / _EITHER).is_file():
        attributes = read_json(path / _EITHER, dict, error=DataError).get("attributes", {})
    else:
        attributes = read_json(path / ".zattrs", dict, error=DataError) if (path / ".zattrs").is_file() else {}
    images = attributes.get("ome", attributes).get("multiscales")
    if not images:
        raise DataError(f"{path} is a zarr group without an OME-zarr image: give the folder of an array in it")
    name = str(images[0]["datasets"][0]["path"])
    if leads_out(name):
        raise DataError(f"{path} names an array {name!r:.100} outside of its folder: write it again")
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in images[0].get("axes", "tczyx")]
    return path / name, [str(axis).lower() for axis in axes]


def _stored(path: Path, array: Any, axes: list[str], rounding: list[str]) -> StoredImage:
    if len(axes) != array.ndim or not {"y", "x"} <= set(axes) or len(set(axes)) < len(axes):
        raise DataError(f"{path}: array of shape {array.shape!s:.100}; save [H, W] or [H, W, C]")
    planes = [f"{n} along {axis}" for axis, n in zip(axes, array.shape, strict=True) if axis not in _PLANE and n > 1]
    if planes:
        raise DataError(
            f"{path} has several planes, {' and '.join(planes)}: save the one that is meant as an array of its own"
        )
    sides = dict(zip(axes, array.shape, strict=True))
    height, width, channels = sides["y"], sides["x"], sides.get("c", 1)
    require_numbers(str(path), (height, width, channels), array.dtype)
    chunk = dict(zip(axes, array.chunks, strict=True))
    tile = min(chunk["y"], height), min(chunk["x"], width)
    inner = [side if axis != "c" else max(side, channels) for axis, side in chunk.items()]
    what = f"a zarr array in chunks of {'x'.join(map(str, array.chunks))}"
    require_bounded(path, int(np.prod(inner, dtype=object)) * array.dtype.itemsize, what)

    def decode(row: int, column: int) -> np.ndarray:
        places = {"y": slice(row * tile[0], (row + 1) * tile[0]), "x": slice(column * tile[1], (column + 1) * tile[1])}
        values = np.asarray(array[tuple(places.get(axis, slice(None) if axis == "c" else 0) for axis in axes)])
        kept = [axis for axis in axes if axis in _PLANE]
        values = values.transpose([kept.index(axis) for axis in _PLANE if axis in kept])
        return values if values.ndim == 3 else values[..., None]

    size, (mode, white) = (width, height), mode_of_numbers(array.dtype)
    inexact = f"stored by the zarr codec {rounding[0]}, which may not keep ids exactly" if rounding else ""
    header = Header(size, size, "NPY", mode, channels, white=white, inexact=inexact)
    return StoredImage(
        header, array.dtype, TiledImage((height, width, channels), tile, array.dtype, decode).read, lambda: None
    )


def _metadata(folder: Path) -> dict[str, Any]:
    """What an array says about itself, in one of the two formats."""
    found = [name for name in (_ARRAY, _EITHER) if (folder / name).is_file()]
    if len(found) != 1:
        problem = "metadata of two formats" if found else "no metadata of an array"
        raise DataError(f"{folder} has {problem}: write it again, or give the folder of a zarr array")
    return read_json(folder / found[0], dict, error=DataError)


def _axes(metadata: dict[str, Any], n: int) -> list[str]:
    """The axes of a plain array: [H, W] or [H, W, C], unless it names its rows y and its columns x itself."""
    names = [str(name).lower() for name in metadata.get("dimension_names") or ()]
    return names if {"y", "x"} <= set(names) else list(_PLANE[:n])


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """The names of all codecs of an array, also of those within shards."""
    waiting = [metadata.get("compressor"), *(metadata.get("filters") or ()), *metadata.get("codecs", ())]
    while waiting:
        codec = waiting.pop()
        if codec is not None:
            yield str(codec.get("id", codec.get("name")))
            inside = codec.get("configuration") or {}
            waiting += [*inside.get("codecs", ()), *inside.get("index_codecs", ())]
