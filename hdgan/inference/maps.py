"""The input of a generator as tensors on the device, read from files, Pillow images, arrays or tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.config.bounds import Depth
from hdgan.data import read_input, read_map, read_photo, read_stored_photo, to_unit_range
from hdgan.data.headers import WHITES
from hdgan.data.images import require_finite, require_range, require_unit_range
from hdgan.data.opening import named
from hdgan.data.pairs import not_of_model
from hdgan.errors import ConfigError, DataError
from hdgan.families import ModelConfig
from hdgan.files.remote import located
from hdgan.ops import InstanceIndex, instance_broadcast, instance_index
from hdgan.styles.sample import Styles
from hdgan.styles.table import classes_of
from hdgan.wording import count

ImageSource = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Maps:
    """The input of one call, as a batch. Parts that the model does not take are None."""

    name: str
    """Its name in messages."""
    label: Tensor | None  # [B, H, W] integer
    image: Tensor | None  # [B, input_channels, H, W] in [-1, 1], input of A->B models
    ids: Tensor | None  # [B, H, W] integer
    divisor: int
    """`ModelConfig.instance_divisor`."""
    batched: bool
    """Whether it came as a batch."""
    encoded: Styles | None = None
    """The styles of its photo, if that has been encoded."""

    @property
    def size(self) -> tuple[int, int, int]:
        """B, H, W."""
        source = self.label if self.label is not None else self.image
        assert source is not None
        return len(source), source.shape[-2], source.shape[-1]

    @property
    def pixels(self) -> int:
        """Of all maps of the batch."""
        batch, height, width = self.size
        return batch * height * width

    def on(self, device: torch.device) -> Maps:
        """The same maps on a device, with what has been found out about them. A copy to a GPU is not waited for."""
        if device.type == "cpu":
            return self
        sent = partial(_sent, device=device)
        moved = replace(self, label=sent(self.label), image=sent(self.image), ids=sent(self.ids))
        known = vars(self)
        if "index" in known:
            vars(moved)["index"] = InstanceIndex(*map(sent, self.index))
        if "classes" in known:
            vars(moved)["classes"] = self.classes
        return moved

    @cached_property
    def index(self) -> InstanceIndex:
        """The areas that styles belong to: the instances, or the classes if there is no instance map.

        Raises:
            ConfigError: there is neither an instance map nor a label map.
        """
        areas = self.ids if self.ids is not None else self.label
        if areas is None:
            raise ConfigError("a photo gives a style to each instance: give an instance map")
        return instance_index(areas)

    @cached_property
    def classes(self) -> list[int]:
        """The class of each instance of the index, by `classes_of`."""
        return classes_of(self.index, self.label, self.divisor).tolist()

    def instances(self) -> dict[int, int]:
        """The class of each instance of one map, by its id.

        Raises:
            DataError: they are several maps.
        """
        if self.size[0] > 1:
            raise DataError(f"{self.name} is a batch of {self.size[0]}: give one map")
        return dict(zip(self.index.ids.tolist(), self.classes, strict=True))

    def spread(self, rows: Tensor) -> Tensor:
        """A row for each instance of the index, [N, C], at the pixels of the instances: [B, C, H, W]."""
        return instance_broadcast(rows, self.index)


def _sent(tensor: Tensor | None, device: torch.device) -> Any:
    if tensor is None or tensor.device == device:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def read_maps(
    source: ImageSource | Maps,
    instance: ImageSource | None,
    config: ModelConfig,
    device: torch.device,
    input_depth: Depth | None = None,
) -> Maps:
    """Read and check the input of a call, unless it is already read.

    Args:
        source: label map, or for a model of A->B pairs the input image. Maps are returned unchanged.
        instance: instance map.
        config: of the model.
        device: of the tensors.
        input_depth: as of `Pipeline`.

    Raises:
        DataError: a file or value cannot be used.
        ConfigError: the model needs an instance map, or one is given in addition to Maps.
    """
    if isinstance(source, Maps):
        if instance is not None:
            raise ConfigError(
                f"the maps of {source.name} have already been read: do not give an instance map with them"
            )
        return source
    name = named(source)
    label = image = None
    if config.n_labels:
        label, batched = _read_ids(source, "label map", device)
        require_labels(label, name, config)
    else:
        image, batched = _read_input(source, device, input_depth)
        if image.shape[1] != config.input_channels:
            raise DataError(
                f"{name} has {count(image.shape[1], 'channel')}, but the model takes {config.input_channels}"
            )
    maps = Maps(name, label, image, None, config.instance_divisor, batched)
    if instance is not None:
        ids, _ = _read_ids(instance, "instance map", device)
        _check_size(maps, named(instance), ids)
        return replace(maps, ids=ids)
    if config.instances:
        raise ConfigError(f"the model was trained with instance maps: give one for {name}")
    return maps


def read_photo_of(maps: Maps, photo: ImageSource, config: ModelConfig, device: torch.device) -> Tensor:
    """The photo of the maps, as [B, image_channels, H, W] float32 in [-1, 1].

    A model that was trained on 8-bit RGB reads any photo as such, other models read all channels and bits.

    Raises:
        DataError: it cannot be used, or has another size.
    """
    _require_source(photo, "photo")
    if isinstance(photo, Tensor):
        pixels, _ = _read_tensor(photo, "photo", device, limited=True)
    else:
        _, height, width = maps.size
        floats = isinstance(photo, np.ndarray) and photo.dtype.kind == "f"
        read = read_photo if config.is_rgb and not floats else read_stored_photo
        pixels = _of_pixels(np.asarray(read(_with_path(photo), (width, height))), device)
    _check_size(maps, named(photo), pixels)
    if pixels.shape[1] != config.image_channels:
        raise DataError(
            f"{named(photo)} has {count(pixels.shape[1], 'channel')}: give a photo with {config.image_channels}"
        )
    return pixels


def _read_ids(
    source: ImageSource, kind: Literal["label map", "instance map"], device: torch.device
) -> tuple[Tensor, bool]:
    """An integer map as [B, H, W] on the device, and whether it came as a batch."""
    _require_source(source, kind)
    if isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[2] > 1 and source.size:
        # The maps of a batch are read as one map, one below the other.
        source = torch.from_numpy(np.array(read_map(source.reshape(-1, source.shape[2]), kind)).reshape(source.shape))
    elif not isinstance(source, Tensor):
        source = torch.from_numpy(np.array(read_map(_with_path(source), kind)))
    if source.dtype == torch.bool:
        source = source.to(torch.uint8)
    if source.is_floating_point() or source.is_complex():
        raise DataError(f"the {kind} is of type {source.dtype}: give integers")
    if source.dim() == 4 and source.shape[1] == 1:
        source = source[:, 0]
    if source.dim() not in (2, 3) or source.numel() == 0:
        raise DataError(f"the {kind} has shape {tuple(source.shape)}: give [H, W] or [B, H, W]")
    if source.dtype != torch.uint8:
        wide = source.dtype == torch.uint64
        source = source.long()  # torch has few operations for unsigned integers beyond 8 bits
        if wide and bool((source < 0).any()):
            raise DataError(f"the {kind} contains ids of 2^63 or more: renumber them")
    batched = source.dim() == 3
    return (source if batched else source[None]).to(device), batched


def _read_input(source: ImageSource, device: torch.device, depth: Depth | None) -> tuple[Tensor, bool]:
    """An input image as [B, C, H, W] float32 on the device, and whether it came as a batch."""
    _require_source(source, "input image")
    if isinstance(source, Tensor):
        return _read_tensor(source, "input", device, limited=depth in WHITES)
    values = read_input(_with_path(source))
    if depth in WHITES:
        require_unit_range(source, values, "input")
    return _of_pixels(values, device), False


def _read_tensor(
    source: Tensor, kind: Literal["input", "photo"], device: torch.device, *, limited: bool
) -> tuple[Tensor, bool]:
    """An image as [B, C, H, W] float32 on the device, and whether it came as a batch.

    Its values are looked at where it is, so what is on the CPU waits for no GPU.

    Args:
        source: the image.
        kind: what it is, for messages.
        device: of the result.
        limited: whether its values have to be in [-1, 1].
    """
    if not source.is_floating_point() or source.dim() not in (3, 4) or source.numel() == 0:
        name = "input image" if kind == "input" else kind
        raise DataError(
            f"the {name} has shape {tuple(source.shape)} and type {source.dtype}: give float [C, H, W] or "
            f"[B, C, H, W]{' in [-1, 1]' if limited else ''}"
        )
    batched = source.dim() == 4
    values = source.to(torch.float32)
    low, high = torch.stack(torch.aminmax(values)).tolist()
    require_finite(source, math.isfinite(low) and math.isfinite(high), kind)  # nan is both the least and the greatest
    if limited:
        require_range(source, low, high, kind)
    return (values if batched else values[None]).to(device), batched


def _of_pixels(values: np.ndarray, device: torch.device) -> Tensor:
    """[H, W, C] as [1, C, H, W] float32."""
    return torch.from_numpy(np.array(to_unit_range(values).transpose(2, 0, 1), order="C"))[None].to(device)


def _require_source(source: object, what: str) -> None:
    if not isinstance(source, (str, Path, Image.Image, np.ndarray, Tensor)):
        raise DataError(f"the {what} is given as {type(source).__name__}: give a path, Pillow image, array or tensor")


def _with_path(source: str | Path | Image.Image | np.ndarray) -> Path | Image.Image | np.ndarray:
    return located(Path(source), "the path") if isinstance(source, (str, Path)) else source


def require_labels(label: Tensor, name: str, config: ModelConfig) -> None:
    """Check that a map has labels of the model only.

    Raises:
        DataError: it has another; the message names the map.
    """
    wrong = (label < 0) | (label >= config.n_labels)
    if config.dontcare is not None:
        wrong &= label.long() != config.dontcare
    if bool(wrong.any()):
        values = sorted({int(value) for value in label[wrong].unique()})
        raise DataError(f"{name} contains {not_of_model(values, config.n_labels, config.dontcare)}")


def _check_size(maps: Maps, name: str, other: Tensor) -> None:
    first, second = maps.size, (len(other), other.shape[-2], other.shape[-1])
    if first != second:
        raise DataError(
            f"{maps.name} is {_describe(first)}, but {name} is {_describe(second)}: make them the same size"
        )


def _describe(size: tuple[int, int, int]) -> str:
    return f"{size[2]}x{size[1]}" + ("" if size[0] == 1 else f" in a batch of {size[0]}")
