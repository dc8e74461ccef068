"""The features of all instances of a dataset as one file, features.npz.

Arrays, N instances of M pictures, F features:

    picture  [N] int32        index into `stem`
    id       [N] int64        id in the instance map (in the label map of a model without instance maps)
    label    [N] int64        class
    area     [N] int64        pixels
    box      [N, 4] int32     left, top, right, bottom in pixels; right and bottom are one beyond
    feature  [N, F] float32   E's mean feature
    stem     [M] text         names of the pictures
    size     [M, 2] int64     width and height of each picture
    about    text             JSON of `Origin`
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hdgan.config_io import from_plain, to_plain
from hdgan.data import class_of
from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.ops import InstanceIndex

FEATURES_FILE = "features.npz"


@dataclass(frozen=True)
class Origin:
    """The checkpoint that features come from; features of another E mean nothing to a model."""

    encoder: str = ""
    """`fingerprint` of E; empty where it is not known, as in NVIDIA's files."""
    checkpoint: str = ""
    """Its name, for people."""


def fingerprint(network: nn.Module) -> str:
    """16 hexadecimal digits that tell the weights of a network from others."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class FeatureTable:
    """One row an instance; the module's docstring has shapes and meaning."""

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
        """[N] float64: area of each instance as a share of its picture."""
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
            CheckpointError: the file is missing, damaged or no table.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist: encode the training pictures with `hdgan styles encode RUN`")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                about = json.loads(str(file["about"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CheckpointError(f"{path} is damaged ({error}): {_REMEDY}") from error
        table = FeatureTable(**arrays, origin=from_plain(Origin, about, f"{path}, about"))
        table._check(path)
        return table

    @staticmethod
    def join(parts: Sequence[FeatureTable], origin: Origin) -> FeatureTable:
        """Put tables of consecutive pictures together."""
        shifts = np.cumsum([0, *(len(part.stem) for part in parts[:-1])])
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        arrays["picture"] = np.concatenate(
            [part.picture + shift for part, shift in zip(parts, shifts, strict=True)]
        ).astype(np.int32)
        return FeatureTable(**arrays, origin=origin)

    def _check(self, path: Path) -> None:
        n = len(self.id) if self.id.ndim == 1 else -1
        shapes = {"picture": (n,), "label": (n,), "area": (n,), "box": (n, 4), "size": (*self.stem.shape, 2)}
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if self.feature.ndim != 2 or len(self.feature) != n or not np.isfinite(self.feature).all():
            wrong.append("feature")
        if not wrong and n and not 0 <= self.picture.min() <= self.picture.max() < len(self.stem):
            wrong.append("picture")
        if wrong:
            raise CheckpointError(f"{path} is damaged ({', '.join(wrong)} do not fit): {_REMEDY}")


_ARRAYS = tuple(field.name for field in fields(FeatureTable) if field.name != "origin")
_REMEDY = "delete it and write it again with `hdgan styles encode RUN`"


def classes_of(index: InstanceIndex, label: Tensor | None, divisor: int) -> np.ndarray:
    """Class of each instance, [N] int64.

    It is the label that most of the instance's pixels have (the smallest of several). Under Cityscapes' labels that is
    also what its id says, and it holds for instance maps whose ids say nothing. Without label maps it is what the id
    says: id // divisor, or below the divisor the id itself.

    Args:
        index: of the instance maps.
        label: [B, H, W] integer, or None for a model without classes.
        divisor: `ModelConfig.instance_divisor`.
    """
    if label is None:
        return np.asarray(class_of(index.ids.cpu(), divisor), np.int64)
    label = label.long()
    low, span = int(label.min()), int(label.max()) - int(label.min()) + 1
    combined, counts = (index.rows.long() * span + (label - low)).unique(return_counts=True)
    row, offset = np.divmod(combined.cpu().numpy(), span)
    order = np.lexsort((offset, -counts.cpu().numpy(), row))
    _, first = np.unique(row[order], return_index=True)
    return offset[order][first] + low


def boxes_of(index: InstanceIndex) -> np.ndarray:
    """Bounding box of each instance, [N, 4] int32: left, top, right, bottom."""
    rows = index.rows.flatten().long()
    _, height, width = index.rows.shape
    device = rows.device
    x = torch.arange(width, device=device).expand_as(index.rows).flatten()
    y = torch.arange(height, device=device)[:, None].expand_as(index.rows).flatten()
    none = torch.zeros(len(index.ids), dtype=torch.int64, device=device)
    sides = [
        none.scatter_reduce(0, rows, side, how, include_self=False)
        for side, how in ((x, "amin"), (y, "amin"), (x + 1, "amax"), (y + 1, "amax"))
    ]
    return torch.stack(sides, dim=1).int().cpu().numpy()
