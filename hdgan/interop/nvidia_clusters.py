"""NVIDIA/pix2pixHD's clusters, features_clustered_010.npy: a pickled dict {class: [K, F] centres} in an .npy file.

Unpickling can run any code, so this reads the pickle with stand-ins for the few names of numpy that such a file needs;
nothing else is ever looked up, and numpy sees nothing but checked bytes.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from hdgan.errors import CheckpointError, ConfigError
from hdgan.files import atomic_file
from hdgan.files.json import read_bytes
from hdgan.files.npy import read_npy_header
from hdgan.styles.bank import Cluster, StyleBank
from hdgan.styles.table import Origin


def read_nvidia(path: Path, origin: Origin | None = None) -> StyleBank:
    """Read NVIDIA's clusters. The file has no sizes of clusters, examples or means: the mean of the centres serves.

    Args:
        path: features_clustered_*.npy.
        origin: the checkpoint that they belong to, which the file does not say.

    Raises:
        CheckpointError: the file is missing, damaged, of another content, or names anything but arrays.
    """
    content = read_bytes(path, _GROWTH, "a file of clusters")
    try:
        centres = _centres(content)
    except _Forbidden as error:
        raise CheckpointError(
            f"{path} holds {error}, and loading it could run any code: it must be a dict of arrays, as NVIDIA's "
            "encode_features.py writes it"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, and nothing of it has run
        found = str(error)[:200] if isinstance(error, ValueError) else "it is damaged"
        raise CheckpointError(
            f"{path} is no file of clusters ({found}): it must be a dict of arrays, as NVIDIA's encode_features.py "
            "writes it"
        ) from error
    means = {label: values.mean(0) for label, values in centres.items()}
    clusters = {label: tuple(Cluster(centre) for centre in values) for label, values in centres.items()}
    return StyleBank(clusters, means, np.mean(list(means.values()), axis=0), origin or Origin())


def write_nvidia(bank: StyleBank, path: Path) -> None:
    """Write the clusters for NVIDIA's code; sizes, examples and means are not part of its format.

    Raises:
        ConfigError: the name does not end in .npy.
        HdganError: the file cannot be written.
    """
    if path.suffix != ".npy":
        raise ConfigError(f"{path} must end in .npy, as numpy names such files: for example features_clustered_010.npy")
    centres = {
        int(label): np.array([cluster.centre for cluster in there], np.float64)
        for label, there in bank.clusters.items()
    }
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        # By the names that numpy had before version 2, which later versions read too; Python 2 reads protocol 2.
        file.write(pickle.dumps(np.array(centres, object), protocol=2).replace(b"cnumpy._core.", b"cnumpy.core."))


_GROWTH = 128
"""A pickle's instruction of one byte makes an object of up to about this many."""


class _Forbidden(Exception):
    """A pickle names something else than an array."""


class _Dtype:
    """Stands in for numpy.dtype: its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands in for numpy.ndarray: the bytes or, of an array of objects, the list."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def item(self) -> Any:
        """The object in an array of one object."""
        _, shape, dtype, _, data = self.state
        if shape != () or dtype.code not in ("O", "O4", "O8") or not isinstance(data, list) or len(data) != 1:
            raise ValueError("it holds no single object")
        return data[0]

    def values(self) -> np.ndarray:
        """Centres as [K, F] float32."""
        _, shape, dtype, by_column, data = self.state
        if dtype.code not in ("f4", "f8") or len(shape) != 2 or 0 in shape:
            raise ValueError(f"centres of shape {shape} and type {dtype.code}")
        raw = data.encode("latin1") if isinstance(data, str) else data  # a str of Python 2
        array = np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order)).reshape(
            shape, order="F" if by_column else "C"
        )
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise ValueError("centres that are not finite, or beyond 32 bits")
        return array.astype(np.float32)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


# Only for what Python 3 writes in protocol 2: bytes as text.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle._Unpickler):
    """The one that is written in Python, whose memory follows from the bytes that are there: the one in C makes a table
    as long as the highest number that an object is remembered by."""

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012
    """How each instruction is loaded, but for the one that makes room before it reads."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None


def _centres(content: bytes) -> dict[int, np.ndarray]:
    file = io.BytesIO(content)
    shape, _, dtype = read_npy_header(file)
    if shape != () or not dtype.hasobject:
        raise ValueError(f"an array of {dtype} and shape {shape}")
    # A pickle of Python 2 holds bytes as str, which latin1 keeps.
    table = _Unpickler(file, encoding="latin1").load().item()
    if not isinstance(table, dict) or not table:
        raise ValueError("it holds no dict of classes")
    centres = {label: values.values() for label, values in table.items()}
    if not all(type(label) is int for label in centres) or len({values.shape[1] for values in centres.values()}) > 1:
        raise ValueError("classes that are no integers, or differ in their number of features")
    return centres
