"""A trained model that makes pictures from maps given as files, Pillow images, arrays or tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.checkpoints import find_checkpoint
from hdgan.data import read_input, read_map, read_photo, to_unit_range
from hdgan.devices import choose_device, network_format
from hdgan.errors import ConfigError, DataError
from hdgan.models import Pix2PixHD
from hdgan.models.saving import CLASS_MEAN, load_model

Source = str | Path | Image.Image | np.ndarray | Tensor
_MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


class Pipeline:
    """Makes pictures with a trained generator.

    Args:
        model: the networks; its discriminator is not used.
        class_features: [n_classes, feature_channels], the style that a class has where no photo gives one.
        device: where the model runs.
        precision: "float32", or "bfloat16" for autocast.
    """

    def __init__(
        self,
        model: Pix2PixHD,
        class_features: Tensor | None = None,
        device: torch.device | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.device = device or torch.device("cpu")
        model.discriminator = None
        model.to(self.device, memory_format=network_format(self.device))  # type: ignore[call-overload]
        self.model = model.eval().requires_grad_(False)
        self.config = model.config
        self.class_features = None if class_features is None else class_features.to(self.device)
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, source: Source, instance: Source | None = None, *, photo: Source | None = None) -> Tensor:
        """Make a picture of the size of its input.

        Args:
            source: label map, or for a model trained on A->B pairs the input picture. A path, a Pillow image, an array
                or a tensor: label maps as integers [H, W] or [B, H, W], pictures as [H, W, C] arrays (8 or 16 bits, or
                float in [-1, 1]) or float tensors [C, H, W] or [B, C, H, W] in [-1, 1].
            instance: instance map of the same size; needed if the model was trained with instances.
            photo: takes the style of each instance from this photo; without it each class has its mean style.

        Returns:
            [3, H, W] float32 in [0, 1] on the pipeline's device; [B, 3, H, W] for batched input.

        Raises:
            DataError: a file or value cannot be used: labels out of range, sizes that differ.
            ConfigError: the model needs an instance map or photo that is not given.
        """
        config = self.config
        label = picture = None
        if config.n_labels:
            label, batched = self._map(source, "label map")
            self._check_labels(label, source)
        else:
            picture, batched = self._picture(source, read_input)
            if picture.shape[1] != config.input_channels:
                raise DataError(
                    f"{_name(source)} has {picture.shape[1]} channels, but the model takes {config.input_channels}"
                )
        given = label if label is not None else picture
        assert given is not None
        size = (len(given), *given.shape[-2:])
        ids = None
        if instance is not None:
            ids, _ = self._map(instance, "instance map")
            _check_size(source, size, instance, (len(ids), *ids.shape[-2:]))
        elif config.instances:
            raise ConfigError(f"the model was trained with instance maps: give one for {_name(source)}")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            condition = self.model.condition(label, ids, picture)
            features = self._features(source, label, ids, photo, size)
            image = self.model.generate(condition, features)
        image = (image.float().clamp(-1, 1) + 1) / 2
        return image if batched else image[0]

    def _features(
        self, source: Source, label: Tensor | None, ids: Tensor | None, photo: Source | None, size: tuple[int, ...]
    ) -> Tensor | None:
        """The style of every pixel, [B, feature_channels, H, W]: of the photo's instances, or the mean of its class."""
        if not self.config.feature_channels:
            if photo is not None:
                raise ConfigError("the model was trained without features: a photo cannot give it a style")
            return None
        areas = ids if ids is not None else label
        if photo is not None:
            if self.model.encoder is None:
                raise ConfigError("the checkpoint holds no encoder: it cannot take the style from a photo")
            if isinstance(photo, Image.Image):
                photo = photo.convert("RGB")
            pixels, _ = self._picture(photo, lambda path: np.asarray(read_photo(path)))
            _check_size(source, size, photo, (len(pixels), *pixels.shape[-2:]))
            if pixels.shape[1] != self.config.image_channels:
                raise DataError(f"{_name(photo)} has {pixels.shape[1]} channels: give a photo of 3")
            if areas is None:
                raise ConfigError("a style is taken instance by instance: give an instance map")
            return self.model.encode(pixels, areas)
        if self.class_features is None:
            raise ConfigError("the checkpoint holds no mean style of its classes: give a photo to take the style from")
        if label is None:
            assert areas is not None
            label = torch.zeros_like(areas)
        classes = label.long()
        known = (classes >= 0) & (classes < len(self.class_features))
        features = torch.where(known[..., None], self.class_features[classes * known], self.class_features.mean(0))
        return features.permute(0, 3, 1, 2)

    def _map(self, source: Source, kind: Literal["label map", "instance map"]) -> tuple[Tensor, bool]:
        """An integer map as [B, H, W] on the device, and whether it came as a batch."""
        if isinstance(source, (str, Path)):
            source = read_map(Path(source), kind)
        elif isinstance(source, Image.Image):
            if source.mode not in _MAP_MODES:
                raise DataError(f"the {kind} has mode {source.mode}: give a picture of one integer channel")
            source = np.asarray(source).astype(np.uint8) if source.mode == "1" else np.asarray(source)
        if isinstance(source, np.ndarray):
            source = torch.from_numpy(np.array(source) if source.dtype == np.uint8 else _as_signed(source, kind))
        if source.is_floating_point() or source.dtype == torch.bool:
            raise DataError(f"the {kind} is of type {source.dtype}: give integers")
        if source.dtype != torch.uint8:
            source = source.long()  # torch has few operations for unsigned integers beyond 8 bits
        if source.dim() == 4 and source.shape[1] == 1:
            source = source[:, 0]
        if source.dim() not in (2, 3) or source.numel() == 0:
            raise DataError(f"the {kind} has shape {tuple(source.shape)}: give [H, W] or [B, H, W]")
        batched = source.dim() == 3
        return (source if batched else source[None]).to(self.device), batched

    def _picture(self, source: Source, read: Callable[[Path], np.ndarray]) -> tuple[Tensor, bool]:
        """A picture as [B, C, H, W] in [-1, 1] on the device, and whether it came as a batch."""
        if isinstance(source, (str, Path)):
            source = read(Path(source))
        elif isinstance(source, Image.Image):
            source = np.asarray(source if source.mode in ("L", "RGB", "RGBA", "I;16", "F") else source.convert("RGB"))
        if isinstance(source, np.ndarray):
            values = source if source.ndim == 3 else source[..., None]
            source = torch.from_numpy(np.ascontiguousarray(to_unit_range(values).transpose(2, 0, 1)))
        if not source.is_floating_point() or source.dim() not in (3, 4):
            raise DataError(
                f"a picture has shape {tuple(source.shape)} and type {source.dtype}: give float [C, H, W] or "
                "[B, C, H, W]"
            )
        batched = source.dim() == 4
        return (source if batched else source[None]).to(self.device, torch.float32), batched

    def _check_labels(self, label: Tensor, source: Source) -> None:
        wrong = (label < 0) | (label >= self.config.n_labels)
        if self.config.dontcare is not None:
            wrong &= label.long() != self.config.dontcare
        if bool(wrong.any()):
            values = sorted({int(value) for value in label[wrong].unique()})
            raise DataError(
                f"{_name(source)} holds label {', '.join(map(str, values[:5]))}, but the model knows 0 to "
                f"{self.config.n_labels - 1}: map it to one of these"
            )


def load(
    path: str | Path,
    *,
    checkpoint: str | int = "latest",
    device: str = "auto",
    precision: Literal["float32", "bfloat16"] = "float32",
    ema: bool = True,
) -> Pipeline:
    """Load a trained model.

    Args:
        path: a run folder, a checkpoint folder, or a .safetensors file.
        checkpoint: of a run: "latest", "best", or a step.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "float32" or "bfloat16".
        ema: use the averaged weights where there are any.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        ConfigError: the device does not exist.
    """
    chosen = choose_device(device)
    model, info = load_model(find_checkpoint(Path(path), checkpoint), ema=ema, device=chosen)
    return Pipeline(model, info.tensors.get(CLASS_MEAN), chosen, precision)


def _as_signed(values: np.ndarray, kind: str) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"the {kind} is of type {values.dtype}: give integers")
    return values.astype(np.int64)


def _check_size(first: Source, size: tuple[int, ...], second: Source, other: tuple[int, ...]) -> None:
    if size != other:
        raise DataError(
            f"{_name(first)} is {size[-1]}x{size[-2]}{_batch(size)}, but {_name(second)} is "
            f"{other[-1]}x{other[-2]}{_batch(other)}: give one size to both"
        )


def _batch(size: tuple[int, ...]) -> str:
    return "" if size[0] == 1 else f" in a batch of {size[0]}"


def _name(source: Source) -> str:
    return str(source) if isinstance(source, (str, Path)) else f"the given {type(source).__name__}"
