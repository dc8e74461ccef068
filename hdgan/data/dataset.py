"""The dataset: files in, integer maps and 8-bit photos out; one-hot labels and boundaries are made on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hdgan.config.options import option
from hdgan.config.serialization import check_values
from hdgan.data.config import DataConfig, SizeConfig
from hdgan.data.headers import read_header
from hdgan.data.images import read_input, read_map, read_photo, to_photo, to_unit_range
from hdgan.data.layouts import Pair
from hdgan.data.packed import read_packed
from hdgan.data.packed_index import PackedSample, Size
from hdgan.data.streams import Stream, stream_rng
from hdgan.data.transforms import Geometry, apply_to_input, apply_to_map, apply_to_photo, draw_geometry
from hdgan.errors import ConfigError, DataError
from hdgan.wording import count


class Sample(TypedDict, total=False):
    """One sample; parts that the dataset does not have are absent. H and W are the same for all parts."""

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


class Batch(TypedDict, total=False):
    """Samples stacked along a new first dimension; `stem` lists their names."""

    stem: list[str]
    label: Tensor
    input: Tensor
    ids: Tensor
    photo: Tensor


@dataclass(frozen=True)
class Arrays:
    """The decoded files of one pair, all of `size` (width, height); see `read_map`, `read_input` for the types.

    The photo of a packed pair is an array, [H, W, 3] uint8.
    """

    size: tuple[int, int]
    label: np.ndarray | None = None
    input: np.ndarray | None = None
    ids: np.ndarray | None = None
    photo: Image.Image | np.ndarray | None = None


class PairedDataset(Dataset[Sample]):
    """Pairs as tensors, sized and, for training, randomly cropped and mirrored.

    An item is asked for by index, or by (position, index) where position counts the samples since training began: crop
    and flip depend on the seed and the position alone, so a resumed run sees the same pixels, whatever the workers.

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
            first = self.pairs[0]
            assert first.input is not None
            self.input_channels = first.packed.channels if first.packed else read_header(first.input).input_channels
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
        stored = pair.packed.stored_for(self.size, self.data.photo_filter) if pair.packed else None
        arrays = read_pair(pair, self.n_labels, self.data.dontcare, stored)
        rng = stream_rng(Stream.GEOMETRY, self.seed, position) if self.train else None
        try:
            geometry = draw_geometry(arrays.size, self.size, rng, self.data.flip)
        except DataError as error:
            raise DataError(f"{next(iter(pair.files.values()))}: {error}") from None
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


def read_pair(
    pair: Pair, n_labels: int | None = None, dontcare: int | None = None, stored: Size | None = None
) -> Arrays:
    """Read and check the files of one pair.

    Args:
        pair: From `find_pairs`.
        n_labels: Number of classes; None accepts any label.
        dontcare: Label that is accepted besides.
        stored: Which of the sizes of a packed pair; None takes the largest.

    Raises:
        DataError: a file is unreadable, a label is out of range, or the files differ in size.
    """
    if pair.packed is not None:
        return _read_packed(pair, pair.packed, n_labels, dontcare, stored or pair.packed.sizes[0])
    if pair.side_by_side:
        return _read_side_by_side(pair)
    label = read_map(pair.label, "label map") if pair.label else None
    if pair.label and label is not None and n_labels is not None:
        check_labels(pair.label, label, n_labels, dontcare)
    source = read_input(pair.input) if pair.input else None
    ids = read_map(pair.ids, "instance map") if pair.ids else None
    arrays = {"label": label, "input": source, "ids": ids}
    sizes = {part: (array.shape[1], array.shape[0]) for part, array in arrays.items() if array is not None}
    photo = None
    if pair.photo:
        photo = read_photo(pair.photo, next(iter(sizes.values())))
        sizes["photo"] = photo.size
    return Arrays(check_sizes(pair, sizes), label, source, ids, photo)


def check_labels(path: Path, label: np.ndarray, n_labels: int, dontcare: int | None) -> None:
    """Raise DataError unless every label is in [0, n_labels) or `dontcare`."""
    if label.min() >= 0 and label.max() < n_labels:
        return
    outside = (label < 0) | (label >= n_labels)
    if dontcare is not None:
        outside &= label != dontcare
    if not outside.any():
        return
    raise DataError(f"{path} holds {label_fault(np.unique(label[outside]).tolist(), n_labels, dontcare)}")


def label_fault(wrong: Sequence[int], n_labels: int, dontcare: int | None) -> str:
    """What is said of labels, sorted, that are neither a class nor `dontcare`, with the remedy."""
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
    classes, none = option("model.n_labels"), option("data.dontcare")
    if wrong[-1] < n_labels:
        return f"label {shown}; labels start at 0: set {none} to the one that belongs to no class"
    also = f" ({none} is {dontcare})" if dontcare is not None else ""
    if len(wrong) == 1 and dontcare is None and is_far_above(wrong[0], n_labels - 1):
        remedy = f"set {none} {wrong[0]} if it belongs to no class, else {classes} {wrong[0] + 1}"
    else:
        remedy = f"set {classes} to at least {wrong[-1] + 1}, or {none} to the label that belongs to no class"
    return f"label {shown}, but {classes} is {n_labels}{also}; {remedy}"


def is_far_above(label: int, other: int) -> bool:
    """Whether a label is so far above the next lower one that it hardly counts on from there, like 255."""
    return label > 2 * other + 16


def check_sizes(pair: Pair, sizes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Return the (width, height) that all parts of a pair share.

    Raises:
        DataError: two files differ in size.
    """
    (first, size), *others = sizes.items()
    for part, other in others:
        if other != size:
            files = pair.files
            raise DataError(
                f"{files[first]} is {size[0]}x{size[1]}, but {files[part]} is {other[0]}x{other[1]}; "
                "bring both to one size, or remove the pair"
            )
    return size


def half_of(path: Path, width: int) -> int:
    """Width of each half of a picture that holds A and B side by side; DataError where they are not equal."""
    if width % 2:
        raise DataError(f"{path} is {width} pixels wide, which has no two equal halves; join A and B of one size")
    return width // 2


def _read_side_by_side(pair: Pair) -> Arrays:
    assert pair.input is not None
    both = read_input(pair.input)
    height, half = both.shape[0], half_of(pair.input, both.shape[1])
    return Arrays((half, height), input=both[:, :half], photo=to_photo(pair.input, both[:, half:]))


def _read_packed(pair: Pair, sample: PackedSample, n_labels: int | None, dontcare: int | None, size: Size) -> Arrays:
    parts = read_packed(sample, size)
    if pair.label is not None and n_labels is not None:
        check_labels(pair.label, parts["label"], n_labels, dontcare)
    return Arrays(size, **parts)


def _tensor(array: np.ndarray, dtype: DTypeLike | None = None) -> Tensor:
    """Crop, flip and change of type end in this one copy."""
    return torch.from_numpy(np.array(array, dtype, order="C"))
