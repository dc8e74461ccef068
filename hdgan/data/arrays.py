"""Opening .npy files: the header is compared with the size of the file before any array is made."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from hdgan.data.opening import UNREADABLE, damaged
from hdgan.errors import DataError
from hdgan.files import require_file
from hdgan.files.limits import require_bounded
from hdgan.files.npy import read_npy_header
from hdgan.files.remote import RemotePath, fetched


def load_array(path: Path) -> np.ndarray:
    """Map a .npy file into memory as [H, W, C], unless it is too large to be read whole.

    Returns:
        Integers or floats of any byte order.

    Raises:
        DataError: as of `mapped_array`, or it takes more memory than `hdgan.files.limits` allows.
    """
    array = mapped_array(path)
    require_bounded(path, array.nbytes, f"an array of {'x'.join(map(str, array.shape))} numbers")
    return array


def mapped_array(path: Path) -> np.ndarray:
    """Map a .npy file of any size into memory as [H, W, C]: only what is used of it is read. One on storage is read.

    Returns:
        Integers or floats of any byte order.

    Raises:
        DataError: the file is missing or damaged, its array has an unsuitable type or shape, or it is shorter than its
            header says.
    """
    content = fetched(path) if isinstance(path, RemotePath) else None
    if content is None:
        require_file(path, DataError)
    try:
        with path.open("rb") if content is None else BytesIO(content) as file:
            shape, fortran, dtype = read_npy_header(file)
            offset = file.tell()
    except UNREADABLE as error:
        raise damaged(path, error) from error
    require_numbers(str(path), shape, dtype)
    length = path.stat().st_size if content is None else len(content)
    found, declared = length - offset, math.prod(shape) * dtype.itemsize
    if found < declared:
        raise DataError(
            f"{path} cannot be read (an array of shape {shape!s:.100} is longer than the {found} bytes in the file); "
            "restore it from its source or save it again, or remove it with its partners"
        )
    order: Literal["F", "C"] = "F" if fortran else "C"
    if content is None:
        array: np.ndarray = np.memmap(path, dtype, "r", offset, shape, order)
    else:
        array = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape, order=order)
    return array if array.ndim == 3 else array[..., None]


def require_numbers(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise DataError unless an array of this shape and type can be an image or map, [H, W] or [H, W, C]."""
    if dtype.kind not in "buif":
        kind = "named fields" if dtype.names else "objects" if dtype.hasobject else dtype.name
        raise DataError(f"{name}: array of {kind}; save integers or floats")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise DataError(f"{name}: array of shape {shape!s:.100}; save [H, W] or [H, W, C]")
