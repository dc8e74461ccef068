"""NVIDIA/pix2pixHD's clusters, features_clustered_010.npy: a pickled dict {class: [K, F] centres} in an .npy file.

Unpickling can run any code. The pickle is therefore read as plain values, and NumPy only gets bytes that were checked.
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
from hdgan.weights.pickles import Unknown, read_pickle

_WRITER = "it must be a dict of arrays, as NVIDIA's encode_features.py writes it"
_GROWTH = 8
"""The numbers are held as bytes of the file, of the pickle and as text, and as two arrays."""
_ENCODE = "_codecs.encode"
"""How Python 3 writes bytes for Python 2: as text."""
_NAMES = {
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype",
    _ENCODE,
}  # fmt: skip
"""All that an array of NumPy's names."""


def read_nvidia(path: Path) -> StyleBank:
    """Read NVIDIA's clusters.

    The file has neither sizes of clusters nor examples. It has no means of classes either, so the mean of the centres
    replaces them.

    Args:
        path: features_clustered_*.npy.

    Raises:
        CheckpointError: the file is missing, too large, damaged, of another content, or refers to anything but arrays.
    """
    content = read_bytes(path, _GROWTH, "a file of clusters")
    try:
        centres = _centres(content, path)
    except CheckpointError:
        raise
    except Exception as error:  # the values of a damaged file can make anything fail, but nothing of it has run
        found = str(error)[:200] if isinstance(error, ValueError) else "it is damaged"
        raise CheckpointError(f"{path} is not a file of clusters ({found}): {_WRITER}") from error
    means = {label: values.mean(0) for label, values in centres.items()}
    clusters = {label: tuple(Cluster(centre) for centre in values) for label, values in centres.items()}
    return StyleBank(clusters, means, np.mean(list(means.values()), axis=0))


def write_nvidia(bank: StyleBank, path: Path) -> None:
    """Write the clusters for NVIDIA's code. Its format has no sizes, examples or means.

    Raises:
        ConfigError: the name does not end in .npy.
        HdganError: the file cannot be written.
    """
    if path.suffix != ".npy":
        raise ConfigError(
            f"{path} must end in .npy, the ending that numpy uses: for example features_clustered_010.npy"
        )
    centres = {
        int(label): np.array([cluster.centre for cluster in there], np.float64)
        for label, there in bank.clusters.items()
    }
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        # By the names that numpy had before version 2, which later versions read too; Python 2 reads protocol 2.
        file.write(pickle.dumps(np.array(centres, object), protocol=2).replace(b"cnumpy._core.", b"cnumpy.core."))


def _centres(content: bytes, path: Path) -> dict[int, np.ndarray]:
    """The centres of each class, [K, F] float32."""
    file = io.BytesIO(content)
    shape, _, dtype = read_npy_header(file)
    if shape != () or not dtype.hasobject:
        raise ValueError(f"an array of {dtype} and shape {shape}")
    pickled = read_pickle(file, path)
    foreign = min(pickled.names - _NAMES, default=None)
    if foreign is not None:
        raise CheckpointError(f"{path} contains {foreign}, and loading it could run any code: {_WRITER}")
    shape, code, _, _, objects = _parts(pickled.content)
    if shape != () or code not in ("O", "O4", "O8") or not isinstance(objects, list) or len(objects) != 1:
        raise ValueError("it does not contain a single object")
    (table,) = objects
    if not isinstance(table, dict) or not table:
        raise ValueError("it does not contain a dict of classes")
    centres = {label: _numbers(array) for label, array in table.items()}
    if not all(type(label) is int for label in centres) or len({values.shape[1] for values in centres.values()}) > 1:
        raise ValueError("classes that are not integers, or that differ in their number of features")
    return centres


def _parts(array: Unknown) -> tuple[tuple[int, ...], str, str, bool, Any]:
    """Shape, code of the type, byte order, whether it lies column by column, and content of a pickled array."""
    _, shape, dtype, by_column, data = array.state
    return shape, dtype.arguments[0], dtype.state[1], by_column, data


def _numbers(array: Unknown) -> np.ndarray:
    """The numbers of a pickled array, [K, F] float32."""
    shape, code, order, by_column, data = _parts(array)
    if code not in ("f4", "f8") or order not in ("<", ">", "=", "|") or len(shape) != 2 or 0 in shape:
        raise ValueError(f"centres of shape {shape} and type {code}")
    if isinstance(data, Unknown) and data.name == _ENCODE:
        data = data.arguments[0]
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote bytes as its str
    values = np.frombuffer(raw, np.dtype(order + code)).reshape(shape, order="F" if by_column else "C")
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise ValueError("centres that are not finite, or do not fit into 32 bits")
    return values.astype(np.float32)
