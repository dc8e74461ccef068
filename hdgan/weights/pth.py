"""Weights that `torch.save` wrote, as a zip archive or in the format from before PyTorch 1.6; also safetensors
files."""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from hdgan.errors import CheckpointError
from hdgan.files import require_file
from hdgan.files.archives import open_archive
from hdgan.files.limits import require_bounded
from hdgan.files.safetensors import open_safetensors
from hdgan.weights.pickles import Storage, StoredTensor, Unknown, read_pickle
from hdgan.weights.state import find_state

ReadStorage = Callable[[Storage, torch.dtype], Tensor]
"""Reads the numbers of a storage, [numel]."""

ReadTensors = Callable[[Mapping[Any, Any]], dict[Any, Any]]
"""Reads the tensors of a table from their descriptions, and keeps everything else."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in a file of PyTorch before 1.6."""
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip
_OF_DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, struct.error, zlib.error,
    zipfile.BadZipFile, NotImplementedError, RuntimeError,
)  # fmt: skip
"""The errors of reading a damaged archive or pickle; zipfile raises the last two for methods and ciphers that it does
not support."""


def read_weights(path: Path) -> Mapping[Any, Any]:
    """The state dict of a file, by the names in the file. Nothing that the file contains is run.

    Args:
        path: written by `torch.save` (a state dict, a table with one, or a whole module) or by safetensors; the name
            may have any ending.

    Returns:
        Tensors of any shape and dtype by their names. Entries that are not tensors are kept, for the caller's message.

    Raises:
        CheckpointError: the file is missing, damaged, unpacks to more than the limit, or does not contain exactly one
            network.
    """
    require_file(path, CheckpointError)
    with path.open("rb") as file:
        start = file.read(64)
    if start[8:9] == b"{":
        with open_safetensors(path) as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    for begin, reason in _NO_WEIGHTS.items():
        if start.startswith(begin):
            raise CheckpointError(f"{path} is {reason}")
    with open_saved(path) as (content, read):
        return read(find_state(content, str(path)))


_NO_WEIGHTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights: fetch them with `git lfs pull`",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
}


@contextmanager
def open_saved(path: Path) -> Iterator[tuple[Any, ReadTensors]]:
    """Open a file that `torch.save` wrote. Nothing that it contains is run.

    Yields:
        What was saved, as plain values (see `Pickled`) with descriptions in place of tensors, and a function that reads
        all tensors of a table by their descriptions.

    Raises:
        CheckpointError: the file is missing, damaged, or unpacks to more than the limit.
    """
    require_file(path, CheckpointError)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            zipped = whole[:4] == b"PK\x03\x04"
            with open_archive(path, CheckpointError) if zipped else nullcontext() as archive:
                content, read = _open_zip(path, archive, whole) if archive else _open_old(path, whole)
                yield content, lambda described: _tensors(described, read, path)
    except CheckpointError:  # which is a RuntimeError
        raise
    except _OF_DAMAGE as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a PyTorch file; copy it again"
        ) from error


def require_bounded_archive(path: Path) -> None:
    """Refuse an oversized archive of PyTorch's, a program or weights, before PyTorch itself opens it.

    Raises:
        CheckpointError: the archive or one of its pickles would take more memory than the limit.
        zipfile.BadZipFile, ValueError, LookupError, TypeError: it is damaged.
    """
    with open_archive(path, CheckpointError) as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                read_pickle(BytesIO(archive.read(name)), path)


def _open_zip(path: Path, archive: zipfile.ZipFile, whole: mmap.mmap) -> tuple[Any, ReadStorage]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    (pickled,) = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1] or [""]
    if not pickled:
        raise CheckpointError(f"{path} is a zip archive that torch.save did not write; copy the weights file again")
    root = pickled.removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise CheckpointError(
            f"{path} is a TorchScript program, not just weights; save them with torch.save(network.state_dict(), …)"
        )
    order = f"{root}byteorder"
    swapped = order in entries and archive.read(order) != b"little"
    content = read_pickle(BytesIO(archive.read(pickled)), path).content

    def read(storage: Storage, dtype: torch.dtype) -> Tensor:
        entry = entries[f"{root}data/{storage.key}"]
        if entry.file_size != storage.numel * dtype.itemsize:
            raise ValueError("a storage of another size")
        if entry.compress_type != zipfile.ZIP_STORED:
            return _numbers(archive.read(entry), 0, storage.numel, dtype, swapped)
        # Not by zipfile, which requires CRC-32s: torch can be set to write none.
        name_bytes, extra_bytes = struct.unpack_from("<HH", whole, entry.header_offset + 26)
        begin = entry.header_offset + 30 + name_bytes + extra_bytes
        return _numbers(whole, begin, storage.numel, dtype, swapped)

    return content, read


def _open_old(path: Path, whole: mmap.mmap) -> tuple[Any, ReadStorage]:
    """The format before PyTorch 1.6: five pickles, then the length and the numbers of each storage, little-endian."""
    magic, _, _, saved, keys = (read_pickle(cast(IO[bytes], whole), path) for _ in range(5))
    if magic.content != _MAGIC:
        raise ValueError("of another program")
    begins: dict[str, int] = {}
    end = whole.tell()
    for key in keys.content:
        if type(key) is not str:
            raise TypeError("a storage without a name")
        (count,) = struct.unpack_from("<q", whole, end)
        if count != saved.storages[key].numel:
            raise ValueError("a storage of another size")
        begins[key] = end + 8
        end += 8 + count * _dtype(saved.storages[key]).itemsize

    def read(storage: Storage, dtype: torch.dtype) -> Tensor:
        return _numbers(whole, begins[storage.key], storage.numel, dtype)

    return saved.content, read


def _dtype(storage: Storage) -> torch.dtype:
    """The dtype that the name of a storage's class says, such as torch.cuda.FloatStorage."""
    return _DTYPES[storage.kind.rpartition(".")[2].removesuffix("Storage")]


def _numbers(source: Any, begin: int, numel: int, dtype: torch.dtype, swapped: bool = False) -> Tensor:
    """A new tensor [numel] from bytes, which may be big-endian."""
    raw = np.frombuffer(source, np.uint8, numel * dtype.itemsize, begin).copy()
    if swapped:
        raw = raw.view(f"u{dtype.itemsize}").byteswap().view(np.uint8)
    return torch.from_numpy(raw).view(dtype) if numel else torch.empty(0, dtype=dtype)


def _tensors(state: Mapping[Any, Any], read: ReadStorage, path: Path) -> dict[Any, Any]:
    """The tensors of a state dict. Tensors that shared a storage are views of one tensor."""
    described = [value for value in state.values() if isinstance(value, StoredTensor)]
    total = sum(math.prod(value.size) * _known_dtype(value, path).itemsize for value in described)
    if total > path.stat().st_size:
        require_bounded(path, total, "a file of tensors", CheckpointError)
    storages: dict[tuple[str, torch.dtype], Tensor] = {}
    tensors: dict[Any, Any] = {}
    for name, value in state.items():
        if isinstance(value, Unknown):
            raise CheckpointError(
                f"{path}: {name!s:.200} is made by {value.name:.100}, not a dense tensor of plain numbers; save "
                "network.state_dict() of the dense, unquantised network"
            )
        if not isinstance(value, StoredTensor):
            tensors[name] = value
            continue
        dtype = _known_dtype(value, path)
        key = (value.storage.key, dtype)
        if key not in storages:
            storages[key] = read(value.storage, dtype)
        tensors[name] = storages[key].as_strided(value.size, value.stride, value.offset)
    return tensors


def _known_dtype(value: StoredTensor, path: Path) -> torch.dtype:
    try:
        return _dtype(value.storage)
    except KeyError:
        raise CheckpointError(
            f"{path} contains tensors of {value.storage.kind:.100}, not of plain numbers; save the weights as float32"
        ) from None
