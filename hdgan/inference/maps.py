"""What a picture is made from, given as files, Pillow images, arrays or tensors, as tensors on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.data import read_input, read_map, read_photo, to_unit_range
from hdgan.errors import ConfigError, DataError
from hdgan.models import ModelConfig
from hdgan.ops import InstanceIndex, instance_index
from hdgan.styles.table import classes_of

Source = str | Path | Image.Image | np.ndarray | Tensor
_MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


@dataclass(frozen=True)
class Maps:
    """The input of one call, as a batch; parts that the model does not take are None."""

    name: str
    """What messages call it."""
    label: Tensor | None  # [B, H, W] integer
    picture: Tensor | None  # [B, input_channels, H, W] in [-1, 1], input of A->B models
    ids: Tensor | None  # [B, H, W] integer
    divisor: int
    """`ModelConfig.instance_divisor`."""
    batched: bool
    """Whether it came as a batch."""

    @property
    def size(self) -> tuple[int, int, int]:
        """B, H, W."""
        given = self.label if self.label is not None else self.picture
        assert given is not None
        return len(given), given.shape[-2], given.shape[-1]

    @cached_property
    def index(self) -> InstanceIndex:
        """The instances, or where there are none the classes: what styles belong to.

        Raises:
            ConfigError: there are neither.
        """
        areas = self.ids if self.ids is not None else self.label
        if areas is None:
            raise ConfigError("a style is taken instance by instance: give an instance map")
        return instance_index(areas)

    @cached_property
    def classes(self) -> list[int]:
        """The class of each instance of the index, as `classes_of` says."""
        return classes_of(self.index, self.label, self.divisor).tolist()


def read_maps(source: Source | Maps, instance: Source | None, config: ModelConfig, device: torch.device) -> Maps:
    """Read and check the input of a call, unless that has been done.

    Args:
        source: label map, or for a model of A->B pairs the input picture; Maps are returned as they are.
        instance: instance map.
        config: of the model.
        device: where the tensors go.

    Raises:
        DataError: a file or value cannot be used.
        ConfigError: the model needs an instance map, or one is given beside Maps.
    """
    if isinstance(source, Maps):
        if instance is not None:
            raise ConfigError(f"the maps of {source.name} have been read: give no instance map beside them")
        return source
    name = name_of(source)
    label = picture = None
    if config.n_labels:
        label, batched = _read_ids(source, "label map", device)
        _check_labels(label, name, config)
    else:
        picture, batched = _read_picture(source, read_input, device)
        if picture.shape[1] != config.input_channels:
            raise DataError(f"{name} has {picture.shape[1]} channels, but the model takes {config.input_channels}")
    maps = Maps(name, label, picture, None, config.instance_divisor, batched)
    if instance is not None:
        ids, _ = _read_ids(instance, "instance map", device)
        _check_size(maps, name_of(instance), ids)
        return replace(maps, ids=ids)
    if config.instances:
        raise ConfigError(f"the model was trained with instance maps: give one for {name}")
    return maps


def read_photo_of(maps: Maps, photo: Source, config: ModelConfig, device: torch.device) -> Tensor:
    """A photo that goes with the maps: [B, image_channels, H, W] in [-1, 1].

    Raises:
        DataError: it cannot be used, or has another size.
    """
    if isinstance(photo, Image.Image):
        photo = photo.convert("RGB")
    pixels, _ = _read_picture(photo, lambda path: np.asarray(read_photo(path)), device)
    _check_size(maps, name_of(photo), pixels)
    if pixels.shape[1] != config.image_channels:
        raise DataError(f"{name_of(photo)} has {pixels.shape[1]} channels: give a photo of {config.image_channels}")
    return pixels


def name_of(source: Source) -> str:
    """What a message calls a source."""
    return str(source) if isinstance(source, (str, Path)) else f"the given {type(source).__name__}"


def _read_ids(source: Source, kind: Literal["label map", "instance map"], device: torch.device) -> tuple[Tensor, bool]:
    """An integer map as [B, H, W] on the device, and whether it came as a batch."""
    if isinstance(source, (str, Path)):
        source = read_map(Path(source), kind)
    elif isinstance(source, Image.Image):
        if source.mode not in _MAP_MODES:
            raise DataError(f"the {kind} has mode {source.mode}: give a picture of one integer channel")
        source = np.asarray(source).astype(np.uint8) if source.mode == "1" else np.asarray(source)
    if isinstance(source, np.ndarray):
        source = torch.from_numpy(np.array(source) if source.dtype == np.uint8 else _as_signed(source, kind))
    if not isinstance(source, Tensor):
        raise DataError(f"the {kind} is given as {type(source).__name__}: give a path, Pillow image, array or tensor")
    if source.is_floating_point() or source.dtype == torch.bool:
        raise DataError(f"the {kind} is of type {source.dtype}: give integers")
    if source.dtype != torch.uint8:
        source = source.long()  # torch has few operations for unsigned integers beyond 8 bits
    if source.dim() == 4 and source.shape[1] == 1:
        source = source[:, 0]
    if source.dim() not in (2, 3) or source.numel() == 0:
        raise DataError(f"the {kind} has shape {tuple(source.shape)}: give [H, W] or [B, H, W]")
    batched = source.dim() == 3
    return (source if batched else source[None]).to(device), batched


def _read_picture(source: Source, read: Callable[[Path], np.ndarray], device: torch.device) -> tuple[Tensor, bool]:
    """A picture as [B, C, H, W] in [-1, 1] on the device, and whether it came as a batch."""
    if isinstance(source, (str, Path)):
        source = read(Path(source))
    elif isinstance(source, Image.Image):
        source = np.asarray(source if source.mode in ("L", "RGB", "RGBA", "I;16", "F") else source.convert("RGB"))
    if isinstance(source, np.ndarray):
        if source.ndim not in (2, 3) or not (source.dtype in (np.uint8, np.uint16) or source.dtype.kind == "f"):
            raise DataError(
                f"a picture has shape {source.shape} and type {source.dtype}: give [H, W] or [H, W, C] of 8 or 16 bits "
                "or float"
            )
        values = source if source.ndim == 3 else source[..., None]
        source = torch.from_numpy(np.ascontiguousarray(to_unit_range(values).transpose(2, 0, 1)))
    if not isinstance(source, Tensor):
        raise DataError(f"a picture is given as {type(source).__name__}: give a path, Pillow image, array or tensor")
    if not source.is_floating_point() or source.dim() not in (3, 4) or source.numel() == 0:
        raise DataError(
            f"a picture has shape {tuple(source.shape)} and type {source.dtype}: give float [C, H, W] or [B, C, H, W]"
        )
    batched = source.dim() == 4
    return (source if batched else source[None]).to(device, torch.float32), batched


def _check_labels(label: Tensor, name: str, config: ModelConfig) -> None:
    wrong = (label < 0) | (label >= config.n_labels)
    if config.dontcare is not None:
        wrong &= label.long() != config.dontcare
    if bool(wrong.any()):
        values = sorted({int(value) for value in label[wrong].unique()})
        raise DataError(
            f"{name} holds label {', '.join(map(str, values[:5]))}, but the model knows 0 to {config.n_labels - 1}: "
            "map it to one of these"
        )


def _as_signed(values: np.ndarray, kind: str) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"the {kind} is of type {values.dtype}: give integers")
    return values.astype(np.int64)


def _check_size(maps: Maps, name: str, other: Tensor) -> None:
    first, second = maps.size, (len(other), other.shape[-2], other.shape[-1])
    if first != second:
        raise DataError(f"{maps.name} is {_describe(first)}, but {name} is {_describe(second)}: give one size to both")


def _describe(size: tuple[int, int, int]) -> str:
    return f"{size[2]}x{size[1]}" + ("" if size[0] == 1 else f" in a batch of {size[0]}")
