"""The input of a generator that is read region by region: maps and images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hdgan.data import class_of, to_unit_range
from hdgan.data.images import require_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.families import ModelConfig
from hdgan.inference.maps import Maps, require_labels
from hdgan.ops import InstanceIndex, instance_index
from hdgan.regions import Box, Local, Node, RegionRun, RegionTensor, Source

_BAND = 2**24
"""Pixels that are looked at together when the instances are counted."""


class WindowSource(Protocol):
    """A map or image that is read by windows; see `hdgan.data.windows`."""

    name: str
    height: int
    width: int
    channels: int
    dtype: np.dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """[h, w] integers of a map, [h, w, C] of an image."""
        ...


class Thinned:
    """Every k-th row and column of a map or image.

    Args:
        whole: the map or image.
        step: k.
    """

    def __init__(self, whole: WindowSource, step: int) -> None:
        self.name, self.channels, self.dtype = whole.name, whole.channels, whole.dtype
        self.height, self.width = -(-whole.height // step), -(-whole.width // step)
        self._whole, self._step = whole, step

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """As of `WindowSource`."""
        whole, step = self._whole, self._step
        rows = [whole.read(row * step, row * step + 1, 0, whole.width)[0, ::step] for row in range(top, bottom)]
        return np.stack(rows)[:, left:right]


class InUnitRange:
    """An image whose floats have to be in [-1, 1], which is checked as they are read.

    Args:
        whole: the image.
        kind: what it is, for messages.
    """

    def __init__(self, whole: WindowSource, kind: Literal["input", "photo"]) -> None:
        self.name, self.channels, self.dtype = whole.name, whole.channels, whole.dtype
        self.height, self.width = whole.height, whole.width
        self._whole, self._kind = whole, kind

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """As of `WindowSource`.

        Raises:
            DataError: a float is outside of [-1, 1].
        """
        values = self._whole.read(top, bottom, left, right)
        require_unit_range(self.name, values, self._kind)
        return values


class _Read:
    """The pixels of `WindowSource` as tensors on a device."""

    def __init__(self, windows: WindowSource, is_map: bool, device: torch.device) -> None:
        self._windows, self._is_map, self._device = windows, is_map, device

    def read(self, box: Box) -> Tensor:
        """[1, h, w] of integers, or [1, C, h, w] float32 in [-1, 1]."""
        pixels = self._windows.read(*box)
        if self._is_map:
            return as_tensor(pixels)[None].to(self._device)
        values = np.array(to_unit_range(pixels).transpose(2, 0, 1), order="C")
        return torch.from_numpy(values)[None].to(self._device)


def as_tensor(values: np.ndarray) -> Tensor:
    """A map as a tensor; torch has few operations for unsigned integers beyond 8 bits."""
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.int32) if values.dtype == np.uint16 else values))


def map_tensor(windows: WindowSource, run: RegionRun) -> RegionTensor:
    """[1, H, W] integers."""
    dtype = torch.uint8 if windows.dtype == np.uint8 else torch.int32
    held = _Read(windows, True, run.device)
    return RegionTensor.of(Source(held, (1, windows.height, windows.width), dtype), run)


def image_tensor(windows: WindowSource, run: RegionRun) -> RegionTensor:
    """[1, C, H, W] float32 in [-1, 1]."""
    shape = 1, windows.channels, windows.height, windows.width
    return RegionTensor.of(Source(_Read(windows, False, run.device), shape, torch.float32), run)


@dataclass(frozen=True)
class Areas:
    """The instances of a large map, or its classes without an instance map.

    Attributes:
        ids: [N] int64, in increasing order.
        counts: [N] int64, their pixels.
        classes: [N], by the rule of `classes_of`.
    """

    ids: np.ndarray
    counts: np.ndarray
    classes: list[int]

    @property
    def index(self) -> InstanceIndex:
        """The same without the rows of the pixels."""
        ids, counts = torch.from_numpy(self.ids), torch.from_numpy(self.counts)
        return InstanceIndex(torch.empty(0, dtype=torch.int32), torch.tensor([0, len(ids)]), ids, counts)

    def rows(self, ids: Tensor) -> Tensor:
        """The row of each pixel's instance, int64 in the shape of `ids`."""
        return torch.searchsorted(torch.from_numpy(self.ids).to(ids.device), ids.long())


def find_areas(
    label: WindowSource | None,
    ids: WindowSource | None,
    config: ModelConfig,
    progress: Callable[[int], None] = lambda pixels: None,
) -> Areas:
    """Look at all pixels of large maps once: check the labels, and count the pixels of each instance by label.

    Args:
        label: label map, or None for a model without.
        ids: instance map, or None to take the classes for instances.
        config: of the model.
        progress: called with the number of pixels of each part.

    Raises:
        DataError: a label is not one of the model's.
    """
    areas = label if ids is None else ids
    assert areas is not None
    found: dict[tuple[int, int], int] = {}
    rows = max(1, _BAND // areas.width)
    for top in range(0, areas.height, rows):
        place = top, min(top + rows, areas.height), 0, areas.width
        labels = None if label is None else as_tensor(label.read(*place))[None]
        if labels is not None:
            assert label is not None
            require_labels(labels, label.name, config)
        of = labels if ids is None else as_tensor(ids.read(*place))[None]
        assert of is not None
        for key, count in _pairs(of, labels):
            found[key] = found.get(key, 0) + count
        progress((place[1] - place[0]) * areas.width)
    return _joined(found, label is None, config.instance_divisor)


def _pairs(ids: Tensor, labels: Tensor | None) -> Iterator[tuple[tuple[int, int], int]]:
    """Id and label that meet in pixels, and in how many; 0 in place of the label without a label map."""
    index = instance_index(ids)
    names = index.ids.tolist()
    if labels is None:
        yield from (((id, 0), count) for id, count in zip(names, index.counts.tolist(), strict=True))
        return
    low, span = int(labels.min()), int(labels.max()) - int(labels.min()) + 1
    counts = torch.bincount((index.rows.long() * span + (labels.long() - low)).flatten())
    for both in counts.nonzero().flatten().tolist():
        row, offset = divmod(both, span)
        yield (names[row], offset + low), int(counts[both])


def _joined(found: dict[tuple[int, int], int], by_id: bool, divisor: int) -> Areas:
    totals: dict[int, int] = {}
    best: dict[int, tuple[int, int]] = {}
    for (id, label), count in found.items():
        totals[id] = totals.get(id, 0) + count
        best[id] = min(best.get(id, (0, 0)), (-count, label))
    ids = sorted(totals)
    classes = class_of(np.array(ids), divisor).tolist() if by_id else [best[id][1] for id in ids]
    return Areas(np.array(ids, np.int64), np.array([totals[id] for id in ids], np.int64), classes)


@dataclass(frozen=True)
class LargeMaps(Maps):
    """The input of one call whose pixels are read region by region. Its tensors are `RegionTensor`.

    Attributes:
        source: the label map or input image.
        instance: the instance map.
        areas: the instances, or the classes; None for a model without labels and a call without an instance map.
        config: of the model.
        run: how the tensors are computed.
    """

    source: WindowSource = field(kw_only=True)
    instance: WindowSource | None = field(kw_only=True)
    areas: Areas | None = field(kw_only=True)
    config: ModelConfig = field(kw_only=True)
    run: RegionRun = field(kw_only=True)

    @property
    def found(self) -> Areas:
        """The areas that styles belong to.

        Raises:
            ConfigError: there is neither an instance map nor a label map.
        """
        if self.areas is None:
            raise ConfigError("a photo gives a style to each instance: give an instance map")
        return self.areas

    @property
    def index(self) -> InstanceIndex:
        """The areas without the rows of the pixels."""
        return self.found.index

    @property
    def classes(self) -> list[int]:
        """The class of each area."""
        return self.found.classes

    def for_run(self, run: RegionRun) -> LargeMaps:
        """The same for another run."""
        return replace(large_maps(self.source, self.instance, self.areas, self.config, run), encoded=self.encoded)

    def thinned(self, side: int, run: RegionRun) -> LargeMaps:
        """Every k-th row and column, so that no side is longer than `side`."""
        step = -(-max(self.source.height, self.source.width) // side)
        instance = None if self.instance is None else Thinned(self.instance, step)
        thin = large_maps(Thinned(self.source, step), instance, self.areas, self.config, run)
        return replace(thin, encoded=self.encoded)

    def spread(self, rows: Tensor) -> Tensor:
        """As of `Maps`."""
        areas, ids = self.found, self._ids

        def of_pixels(ids: Tensor) -> Tensor:
            return rows.to(ids.device)[areas.rows(ids)].permute(0, 3, 1, 2)

        shape = 1, rows.shape[1], *ids.shape[1:]
        return RegionTensor.of(Local(of_pixels, [ids.node], shape, rows.dtype, stride=1, margin=0), ids.run)

    def reduced(self, features: Tensor) -> Tensor:
        """As of `Maps`."""
        areas, ids = self.found, self._ids
        assert isinstance(features, RegionTensor)
        sums = torch.zeros(len(areas.ids), features.shape[1], dtype=torch.float64, device=features.device)
        for box, pixels in ids.run.computed(features.node):
            rows = areas.rows(ids.node.held.read(box))  # type: ignore[union-attr]
            sums.index_add_(0, rows.flatten(), pixels[0].flatten(1).T.double())
        return (sums / torch.from_numpy(areas.counts).to(sums.device)[:, None]).float()

    @property
    def _ids(self) -> RegionTensor:
        areas = self.label if self.ids is None else self.ids
        assert isinstance(areas, RegionTensor)
        return areas


def large_maps(
    source: WindowSource, instance: WindowSource | None, areas: Areas | None, config: ModelConfig, run: RegionRun
) -> LargeMaps:
    """The tensors of maps for a run; the arguments are as of `LargeMaps`."""
    label = map_tensor(source, run) if config.n_labels else None
    image = None if config.n_labels else image_tensor(source, run)
    ids = None if instance is None else map_tensor(instance, run)
    parts = source.name, label, image, ids, config.instance_divisor
    return LargeMaps(*parts, batched=True, source=source, instance=instance, areas=areas, config=config, run=run)


def check_same_size(windows: Sequence[WindowSource]) -> None:
    """Check that maps and images of one call have one size.

    Raises:
        DataError: they have not.
    """
    first, *others = windows
    for other in others:
        if (first.height, first.width) != (other.height, other.width):
            raise DataError(
                f"{first.name} is {first.width}x{first.height}, but {other.name} is {other.width}x{other.height}: make "
                "them the same size"
            )


def node_of(tensor: Tensor) -> Node:
    """The node of a tensor that is computed region by region."""
    assert isinstance(tensor, RegionTensor)
    return tensor.node
