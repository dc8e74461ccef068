"""The features of all instances of a dataset in one file, features.npz.

Its arrays, for N instances in M images and F features:

    picture  [N] int32        index into `stem`
    id       [N] int64        id in the instance map (in the label map of a model without instance maps)
    label    [N] int64        class
    area     [N] int64        pixels
    box      [N, 4] int32     left, top, right, bottom in pixels; right and bottom are exclusive
    feature  [N, F] float32   E's mean feature
    stem     [M] text         names of the images
    size     [M, 2] int64     width and height of each image
    about    text             JSON of `Origin`
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from hdgan.config.serialization import from_plain, to_plain
from hdgan.data import class_of
from hdgan.errors import CheckpointError
from hdgan.files import atomic_file, leads_out
from hdgan.files.archives import open_archive
from hdgan.files.json import parse_json
from hdgan.files.npy import read_npy_header
from hdgan.ops import InstanceIndex
from hdgan.styles.remedies import how_to_encode, how_to_encode_again


@dataclass(frozen=True)
class Origin:
    """The checkpoint whose E computed the features. A model cannot use features of another E."""

    encoder: str = ""
    """`fingerprint` of E; empty if unknown, as in NVIDIA's files."""
    checkpoint: str = ""
    """Its name, for messages."""


def fingerprint(network: nn.Module) -> str:
    """16 hexadecimal digits that identify the weights of a network."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class FeatureTable:
    """A row for each instance. The docstring of the module lists shapes and meaning of the arrays."""

    picture: np.ndarray
    id: np.ndarray
    label: np.ndarray
    area: np.ndarray
    box: np.ndarray
    feature: np.ndarray
    stem: np.ndarray
    size: np.ndarray
    origin: Origin = Origin()

    def __len__(self) -> int:
        return len(self.id)

    @property
    def share(self) -> np.ndarray:
        """[N] float64: area of each instance as a share of its image."""
        return self.area / self.size.prod(axis=1)[self.picture]

    def save(self, path: Path) -> None:
        """Write the table atomically.

        Raises:
            HdganError: the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(to_plain(self.origin))), **arrays)

    @staticmethod
    def load(path: Path) -> FeatureTable:
        """Read a table.

        Raises:
            CheckpointError: the file is missing, damaged or not a table.
        """
        if not os.path.lexists(path):
            raise CheckpointError(f"{path} does not exist: {how_to_encode(path)}")
        try:
            with open_archive(path, CheckpointError) as archive:
                headers = {name: _header(archive, name) for name in (*_ARRAYS, "about")}
                _check_shapes(path, headers)
                arrays = {name: _read(archive, name, header) for name, header in headers.items()}
            about = str(arrays.pop("about"))
        except CheckpointError:  # which is a RuntimeError
            raise
        except Exception as error:  # a damaged archive or header can raise anything; no code in it is run
            raise CheckpointError(f"{path} is damaged ({error!s:.200}): {how_to_encode_again(path)}") from error
        origin = from_plain(Origin, parse_json(about, f"{path}, about", how_to_encode_again(path)), f"{path}, about")
        table = FeatureTable(**arrays, origin=origin)
        table._check_values(path)
        return table

    @staticmethod
    def join(parts: Sequence[FeatureTable], origin: Origin) -> FeatureTable:
        """Join tables of consecutive images."""
        shifts = np.cumsum([0, *(len(part.stem) for part in parts[:-1])])
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        arrays["picture"] = np.concatenate(
            [part.picture + shift for part, shift in zip(parts, shifts, strict=True)]
        ).astype(np.int32)
        return FeatureTable(**arrays, origin=origin)

    def _check_values(self, path: Path) -> None:
        wrong = []
        if not np.isfinite(self.feature).all():
            wrong.append("feature contains values that are not finite")
        if len(self) and not 0 <= self.picture.min() <= self.picture.max() < len(self.stem):
            wrong.append("picture is out of range")
        if len(self.size) and self.size.min() < 1:
            wrong.append("size is below 1")
        outside = [stem for stem in self.stem.tolist() if leads_out(stem)]
        if outside:
            wrong.append(f"stem contains {outside[0]!r:.60}")
        if wrong:
            raise CheckpointError(f"{path} is damaged ({'; '.join(wrong)}): {how_to_encode_again(path)}")


_ARRAYS = tuple(field.name for field in fields(FeatureTable) if field.name != "origin")
_KINDS = {"feature": "f", "stem": "U", "about": "U"}
"""NumPy's letters for the types that are not integers."""


@dataclass(frozen=True)
class _ArrayHeader:
    """The header of an array's .npy file."""

    shape: tuple[int, ...]
    by_column: bool
    dtype: np.dtype
    begin: int
    """Bytes of the header."""


def _header(archive: zipfile.ZipFile, name: str) -> _ArrayHeader:
    """Read the header, and check that the array is of the right kind and has the size of its file.

    Raises:
        ValueError: it is not, or has not.
    """
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        header = _ArrayHeader(*read_npy_header(stream), stream.tell())
    if header.dtype.kind not in _KINDS.get(name, "iu"):
        raise ValueError(f"{name} has dtype {header.dtype!s:.60}")
    if any(side < 0 for side in header.shape):
        raise ValueError(f"{name} has shape {header.shape!r:.60}")
    if math.prod(header.shape) * header.dtype.itemsize + header.begin != entry.file_size:
        raise ValueError(f"{name} is cut off")
    return header


def _check_shapes(path: Path, headers: Mapping[str, _ArrayHeader]) -> None:
    """Check that the shapes of the arrays agree before any array is read."""
    shapes = {name: header.shape for name, header in headers.items()}
    n, m = ((*shapes[name], -1)[0] for name in ("id", "stem"))
    fitting = {
        **dict.fromkeys(("picture", "id", "label", "area"), (n,)),
        "box": (n, 4),
        "feature": (n, *shapes["feature"][1:2]),
        "stem": (m,),
        "size": (m, 2),
        "about": (),
    }
    wrong = [
        name for name, shape in fitting.items() if shapes[name] != shape or (name == "feature" and len(shape) != 2)
    ]
    if wrong:
        raise CheckpointError(
            f"{path} is damaged (array shapes do not agree: {', '.join(wrong)}): {how_to_encode_again(path)}"
        )


def _read(archive: zipfile.ZipFile, name: str, header: _ArrayHeader) -> np.ndarray:
    content = archive.read(f"{name}.npy")
    if header.dtype.kind == "U":  # NumPy accepts any number as a character, but Python fails when it is used
        codes = np.frombuffer(content, np.dtype("u4").newbyteorder(header.dtype.byteorder), offset=header.begin)
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError(f"{name} contains a number that is not a character")
    values = np.frombuffer(content, header.dtype, math.prod(header.shape), header.begin)
    return values.reshape(header.shape, order="F" if header.by_column else "C")


_MOST_CELLS = 2**22
"""Of a table of instances by labels; the pixels of more are sorted, which takes longer."""


def classes_of(index: InstanceIndex, label: Tensor | None, divisor: int) -> np.ndarray:
    """Class of each instance, [N] int64.

    It is the label of most of the instance's pixels, the smallest of several. Cityscapes' ids imply the same class, but
    other instance maps may have ids that imply none. Without label maps the class follows from the id: id // divisor,
    or the id itself if it is below the divisor.

    Args:
        index: of the instance maps.
        label: [B, H, W] integer, or None for a model without classes.
        divisor: `ModelConfig.instance_divisor`.
    """
    if label is None:
        return np.asarray(class_of(index.ids.cpu(), divisor), np.int64)
    label = label.long()
    low, span = int(label.min()), int(label.max()) - int(label.min()) + 1
    cells = index.rows.long() * span + (label - low)
    if len(index.ids) * span <= _MOST_CELLS:
        counts = cells.flatten().bincount(minlength=len(index.ids) * span).view(-1, span)
        return counts.cpu().numpy().argmax(1) + low
    combined, counts = cells.unique(return_counts=True)
    row, offset = np.divmod(combined.cpu().numpy(), span)
    order = np.lexsort((offset, -counts.cpu().numpy(), row))
    _, first = np.unique(row[order], return_index=True)
    return offset[order][first] + low


def boxes_of(index: InstanceIndex) -> np.ndarray:
    """Bounding box of each instance in pixels, [N, 4] int32: left, top, right, bottom; the last two are exclusive."""
    from scipy.ndimage import find_objects  # half a second, and images are generated without it

    found = find_objects(index.rows.cpu().numpy() + 1)  # 0 would be background
    return np.array([(x.start, y.start, x.stop, y.stop) for _, y, x in found], np.int32).reshape(-1, 4)
