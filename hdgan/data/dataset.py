"""The dataset: it reads files and returns integer maps and photos, most of 8 bits. One-hot labels are made on the
device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.data.color_jitter import apply_jitter, sample_jitter
from hdgan.data.config import DataConfig, PartName, SizeConfig
from hdgan.data.image_kind import RGB, ImageKind, photos_differ
from hdgan.data.images import to_unit_range
from hdgan.data.pairs import Pair, size_of
from hdgan.data.streams import Stream, stream_rng
from hdgan.data.transforms import apply_geometry, sample_geometry
from hdgan.errors import ConfigError, DataError
from hdgan.wording import count


class Sample(TypedDict, total=False):
    """One sample. Parts that the dataset does not have are absent. All parts have the same H and W."""

    stem: str
    """Name shared by the files of the pair."""
    label: Tensor
    """[H, W] uint8 (int32 for more than 256 classes), each in [0, n_labels) or `dontcare`."""
    input: Tensor
    """[C, H, W] float32: the input of an A-to-B model; integers are scaled to [-1, 1], floats are as in the file."""
    ids: Tensor
    """[H, W] int32: instance ids exactly as in the file."""
    photo: Tensor
    """[3, H, W] uint8; where photos are read as stored, [C, H, W] uint8, or float32 in [-1, 1] for other depths."""


class LoaderBatch(TypedDict, total=False):
    """Samples stacked along a new first dimension; `stem` lists their names."""

    stem: list[str]
    label: Tensor
    input: Tensor
    ids: Tensor
    photo: Tensor


def photo_to_unit_range(photo: Tensor) -> Tensor:
    """The photo of a sample, or a batch of them, as float32 in [-1, 1]."""
    return photo.float() / 127.5 - 1 if photo.dtype == torch.uint8 else photo


class PairedDataset(Dataset[Sample]):
    """Pairs as tensors, sized and, for training, randomly cropped, mirrored, rotated and changed in colour.

    The key of an item is its index, or (position, index), where position counts the samples since training began. What
    is random depends only on the seed and the position, so a resumed run sees the same pixels with any number of
    workers.

    Args:
        pairs: From `find_pairs`.
        data: Meaning of the values, flip, rotation, colour jitter and filter.
        size: Size of the samples.
        n_labels: Number of classes; 0 for A-to-B pairs, which have an input and no label map.
        train: Change samples at random, and require photos; otherwise crops are centred.
        seed: Seed of the random changes.
        trained: Whether the model is already trained, for messages.

    Attributes:
        input_channels: Channels of the A-to-B input, from its first file; 0 with label maps.
        photo_kind: Channels and type of the photos: those of the first file if they are read as stored, else RGB.

    Raises:
        ConfigError: `n_labels` or colour jitter do not suit the pairs, or a size is out of its bounds.
        DataError: no pairs, or training pairs without photos.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        data: DataConfig,
        size: SizeConfig,
        n_labels: int,
        *,
        train: bool = False,
        seed: int = 0,
        trained: bool = False,
    ) -> None:
        check_values(size, "size")
        if not pairs:
            raise DataError("the dataset has no pairs; check its folder with: hdgan data check ROOT")
        if (n_labels > 0) != (pairs[0].label is not None):
            found = "label maps" if pairs[0].label is not None else "A-to-B pairs without label maps"
            name = option("model.n_labels")
            raise ConfigError(f"{name} is {n_labels}, but the dataset contains {found}; {name} is 0 only for A-to-B")
        if train and pairs[0].photo is None:
            raise DataError(f"{pairs[0].stem} has no photo; training needs a photo for each sample of its phase")
        self.pairs, self.data, self.n_labels = tuple(pairs), data, n_labels
        self.size = size.training if train else size
        self.train, self.seed, self.trained = train, seed, trained
        first = self.pairs[0]
        kinds = first.read_headers().kinds if n_labels == 0 or first.stored else {}
        self.input_channels = kinds["input"].channels if n_labels == 0 else 0
        self.photo_kind = kinds.get("photo", RGB) if first.stored else RGB
        if train and data.color_jitter and (floats := [part for part in kinds if kinds[part].depth == "float32"]):
            raise ConfigError(
                f"{option('data.color_jitter')} is {data.color_jitter}, but {getattr(first, floats[0])} holds floats: "
                "set it to 0"
            )
        narrow = n_labels <= 256 and (data.dontcare is None or 0 <= data.dontcare <= 255)
        self._label_dtype = np.uint8 if narrow else np.int32

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Read one sample.

        Args:
            key: Index, or (position, index).

        Raises:
            DataError: a file is unreadable or does not suit its partners, the labels, or the crop.
        """
        position, index = key if isinstance(key, tuple) else (key, key)
        pair = self.pairs[index]
        arrays = pair.read(pair.stored_size(self.size, self.data.photo_filter))
        pair.check_labels(arrays.get("label"), self.n_labels, self.data.dontcare, trained=self.trained)
        if "input" in arrays and arrays["input"].shape[2] != self.input_channels:
            raise DataError(
                f"{pair.input} has {count(arrays['input'].shape[2], 'channel')}, {self.pairs[0].input} has "
                f"{self.input_channels}; save all inputs with the same number of channels"
            )
        self._require_same_photos(pair, arrays.get("photo"))
        rng = stream_rng(Stream.GEOMETRY, self.seed, position) if self.train else None
        try:
            geometry = sample_geometry(
                size_of(next(iter(arrays.values()))), self.size, rng, self.data.flip, self.data.rotate
            )
        except DataError as error:
            raise DataError(f"{pair.first_file}: {error}") from None
        parts = apply_geometry(arrays, geometry, self.data.photo_filter)
        if self.train and self.data.color_jitter:
            if parts.get("input", parts["photo"]).dtype == np.float32:  # inputs of one dataset may differ in type
                raise DataError(f"{pair.input} holds floats: set {option('data.color_jitter')} to 0, or save integers")
            jitter = sample_jitter(self.data.color_jitter, stream_rng(Stream.COLOR, self.seed, position))
            parts = apply_jitter(parts, jitter)
        sample = Sample(stem=pair.stem)
        for part, values in parts.items():
            sample[part] = self._tensor(part, values)
        return sample

    def _require_same_photos(self, pair: Pair, photo: Any) -> None:
        """Raise DataError unless a photo that is read as stored has the channels and type of the first one."""
        if not pair.stored or photo is None:
            return
        kind = ImageKind(photo.shape[2], photo.dtype.name)
        if kind != self.photo_kind:
            raise photos_differ(pair.photo, kind, self.pairs[0].photo, self.photo_kind)

    def _tensor(self, part: PartName, values: np.ndarray) -> Tensor:
        """A part in the form that `Sample` has. This is the only copy that crop, flip and conversion make."""
        if part == "input" or (part == "photo" and values.dtype != np.uint8):
            values = to_unit_range(values)
        dtype = {"label": self._label_dtype, "ids": np.int32}.get(part)
        return torch.from_numpy(np.array(values if values.ndim == 2 else values.transpose(2, 0, 1), dtype, order="C"))
