"""The dataset: it reads files and returns integer maps and 8-bit photos. The device makes one-hot labels of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor
from torch.utils.data import Dataset

from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.data.images import to_unit_range
from hdgan.data.labels import check_labels
from hdgan.data.pairs import Arrays, Pair
from hdgan.data.streams import Stream, stream_rng
from hdgan.data.transforms import Geometry, apply_to_input, apply_to_map, apply_to_photo, sample_geometry
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
    """[3, H, W] uint8."""


class LoaderBatch(TypedDict, total=False):
    """Samples stacked along a new first dimension; `stem` lists their names."""

    stem: list[str]
    label: Tensor
    input: Tensor
    ids: Tensor
    photo: Tensor


class PairedDataset(Dataset[Sample]):
    """Pairs as tensors, sized and, for training, randomly cropped and mirrored.

    The key of an item is its index, or (position, index), where position counts the samples since training began. Crop
    and flip depend only on the seed and the position, so a resumed run sees the same pixels with any number of workers.

    Args:
        pairs: From `find_pairs`.
        data: Meaning of the values, flip and filter.
        size: Size of the samples.
        n_labels: Number of classes; 0 for A-to-B pairs, which have an input and no label map.
        train: Jitter, crop and mirror at random, and require photos; otherwise crops are centred.
        seed: Seed of crops and flips.

    Attributes:
        input_channels: Channels of the A-to-B input, from its first file; 0 with label maps.

    Raises:
        ConfigError: `n_labels` does not suit the pairs, or a size is out of its bounds.
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
    ) -> None:
        check_values(size, "size")
        if not pairs:
            raise DataError("the dataset has no pairs; check its folder with: hdgan data check ROOT")
        if (n_labels > 0) != (pairs[0].label is not None):
            found = "label maps" if pairs[0].label is not None else "A-to-B pairs without label maps"
            name = option("model.n_labels")
            raise ConfigError(f"{name} is {n_labels}, but the dataset holds {found}; {name} is 0 only for A-to-B")
        if train and pairs[0].photo is None:
            raise DataError(f"{pairs[0].stem} has no photo; training needs the photos of its phase")
        self.pairs, self.data, self.n_labels = tuple(pairs), data, n_labels
        self.size = size.training if train else size
        self.train, self.seed = train, seed
        self.input_channels = 0
        if n_labels == 0:
            self.input_channels = self.pairs[0].input_channels
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
        if pair.label is not None and arrays.label is not None:
            check_labels(pair.label, arrays.label, self.n_labels, self.data.dontcare)
        rng = stream_rng(Stream.GEOMETRY, self.seed, position) if self.train else None
        try:
            geometry = sample_geometry(arrays.size, self.size, rng, self.data.flip)
        except DataError as error:
            raise DataError(f"{pair.first_file}: {error}") from None
        return self._sample(pair, arrays, geometry)

    def _sample(self, pair: Pair, arrays: Arrays, geometry: Geometry) -> Sample:
        sample = Sample(stem=pair.stem)
        if arrays.label is not None:
            sample["label"] = _tensor(apply_to_map(arrays.label, geometry), self._label_dtype)
        if arrays.input is not None:
            if arrays.input.shape[2] != self.input_channels:
                raise DataError(
                    f"{pair.input} has {count(arrays.input.shape[2], 'channel')}, {self.pairs[0].input} has "
                    f"{self.input_channels}; save all inputs alike"
                )
            values = apply_to_input(arrays.input, geometry, self.data.photo_filter)
            sample["input"] = _tensor(to_unit_range(values).transpose(2, 0, 1))
        if arrays.ids is not None:
            sample["ids"] = _tensor(apply_to_map(arrays.ids, geometry), np.int32)
        if arrays.photo is not None:
            photo = apply_to_photo(arrays.photo, geometry, self.data.photo_filter)
            sample["photo"] = _tensor(photo.transpose(2, 0, 1))
        return sample


def _tensor(array: np.ndarray, dtype: DTypeLike | None = None) -> Tensor:
    """A contiguous tensor; this is the only copy that crop, flip and conversion make."""
    return torch.from_numpy(np.array(array, dtype, order="C"))
