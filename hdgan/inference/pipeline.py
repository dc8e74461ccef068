"""A trained model that makes pictures from maps given as files, Pillow images, arrays or tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdgan.checkpoints import beside, find_checkpoint
from hdgan.data import read_input, read_map, read_photo, to_unit_range
from hdgan.devices import choose_device, network_format
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.models import Pix2PixHD
from hdgan.models.saving import CLASS_MEAN, load_model
from hdgan.ops import instance_broadcast, instance_index, instance_reduce
from hdgan.styles.bank import STYLES_FILE, StyleBank
from hdgan.styles.sample import Styles, feature_rows, rows_of, styles_of
from hdgan.styles.table import classes_of, fingerprint

Source = str | Path | Image.Image | np.ndarray | Tensor
_MAP_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


class Pipeline:
    """Makes pictures with a trained generator.

    Args:
        model: the networks; its discriminator is not used.
        class_features: [n_classes, feature_channels], the style that a class has where no photo gives one.
        device: where the model runs.
        precision: "float32", or "bfloat16" for autocast.
        file: the model's, beside which its clusters are looked for.
    """

    def __init__(
        self,
        model: Pix2PixHD,
        class_features: Tensor | None = None,
        device: torch.device | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        file: Path | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        model.discriminator = None
        model.to(self.device, memory_format=network_format(self.device))  # type: ignore[call-overload]
        self.model = model.eval().requires_grad_(False)
        self.config = model.config
        self.class_features = None if class_features is None else class_features.to(self.device)
        self.precision = precision
        self.file = file

    @torch.inference_mode()
    def __call__(
        self,
        source: Source,
        instance: Source | None = None,
        *,
        photo: Source | None = None,
        styles: Styles | Sequence[Styles] | None = None,
    ) -> Tensor:
        """Make a picture of the size of its input.

        Args:
            source: label map, or for a model trained on A->B pairs the input picture. A path, a Pillow image, an array
                or a tensor: label maps as integers [H, W] or [B, H, W], pictures as [H, W, C] arrays (8 or 16 bits, or
                float in [-1, 1]) or float tensors [C, H, W] or [B, C, H, W] in [-1, 1].
            instance: instance map of the same size; needed if the model was trained with instances.
            photo: takes the style of each instance from this photo; without it each class has its mean style.
            styles: of the instances, instead of a photo; an instance that they lack has the mean style of its class.
                For batched input one for all pictures, or one each.

        Returns:
            [3, H, W] float32 in [0, 1] on the pipeline's device; [B, 3, H, W] for batched input.

        Raises:
            DataError: a file or value cannot be used: labels out of range, sizes that differ.
            ConfigError: the model needs an instance map or photo that is not given, or cannot use what is given.
            CheckpointError: the styles were made with another encoder.
        """
        label, ids, picture, batched = self._read(source, instance)
        given = label if label is not None else picture
        assert given is not None
        size = (len(given), *given.shape[-2:])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            condition = self.model.condition(label, ids, picture)
            features = self._features(source, label, ids, photo, styles, size)
            image = self.model.generate(condition, features)
        image = (image.float().clamp(-1, 1) + 1) / 2
        return image if batched else image[0]

    @cached_property
    def bank(self) -> StyleBank:
        """The clusters beside the model's file, as `hdgan styles cluster` makes them.

        Raises:
            CheckpointError: there are none, or they are another model's.
            ConfigError: the model has no features.
        """
        self._require_features("has no styles")
        if self.file is None:
            raise CheckpointError("the pipeline was not loaded from a file: set its bank")
        bank = StyleBank.load(beside(self.file, STYLES_FILE))
        bank.require(self.encoder_id, str(self.file))
        return bank

    @cached_property
    def encoder_id(self) -> str:
        """`fingerprint` of E, by which styles know the model they belong to; empty without E."""
        return "" if self.model.encoder is None else fingerprint(self.model.encoder)

    @torch.inference_mode()
    def instances(self, source: Source, instance: Source | None = None) -> dict[int, int]:
        """The class of every instance of one map, by instance id (by label, without an instance map).

        It is the label that most of the instance has, or without label maps what its id says.

        Args:
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        label, ids, _, _ = self._read(source, instance)
        areas = ids if ids is not None else label
        if areas is None:
            raise ConfigError("a model without label maps has styles instance by instance: give an instance map")
        if len(areas) > 1:
            raise DataError(f"{_name(source)} is a batch of {len(areas)}: ask for the instances of one map")
        index = instance_index(areas)
        classes = classes_of(index, label, self.config.instance_divisor)
        return dict(zip(index.ids.tolist(), classes.tolist(), strict=True))

    @torch.inference_mode()
    def encode(self, photo: Source, source: Source, instance: Source | None = None) -> Styles:
        """The style of every instance of one photo, to change, mix or keep.

        Args:
            photo: of the size of the maps.
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        classes = self.instances(source, instance)
        label, ids, picture, _ = self._read(source, instance)
        given = label if label is not None else picture
        assert given is not None
        features = self._encode(source, label, ids, photo, (1, *given.shape[-2:])).float()
        areas = ids if ids is not None else label
        assert areas is not None
        index = instance_index(areas)
        values = instance_reduce(features.float(), index).cpu().numpy()
        found = index.ids.cpu().numpy()
        return styles_of(found, np.array([classes[id] for id in found.tolist()]), values, self.encoder_id)

    def _read(
        self, source: Source, instance: Source | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, bool]:
        """Label map, instance map and input picture on the device, those that there are, and whether they are a batch."""
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
        return label, ids, picture, batched

    def _features(
        self,
        source: Source,
        label: Tensor | None,
        ids: Tensor | None,
        photo: Source | None,
        styles: Styles | Sequence[Styles] | None,
        size: tuple[int, ...],
    ) -> Tensor | None:
        """The style of every pixel, [B, feature_channels, H, W]: the given ones, the photo's, or the mean of its class."""
        if photo is not None and styles is not None:
            raise ConfigError("a photo and styles are given: give one of them")
        if photo is not None:
            self._require_features("cannot take the style from a photo")
            return self._encode(source, label, ids, photo, size)
        if styles is not None:
            self._require_features("cannot be given styles")
            return self._styled(label, ids, [styles] * size[0] if isinstance(styles, Styles) else styles)
        return self._mean_features(label, ids) if self.config.feature_channels else None

    def _require_features(self, what: str) -> None:
        if not self.config.feature_channels:
            raise ConfigError(
                f"the model was trained without features and {what}: train one with --model.feature-channels 3"
            )

    def _encode(
        self, source: Source, label: Tensor | None, ids: Tensor | None, photo: Source, size: tuple[int, ...]
    ) -> Tensor:
        """E's features of a photo, averaged over its instances."""
        self._require_features("cannot take the style from a photo")
        if isinstance(photo, Image.Image):
            photo = photo.convert("RGB")
        pixels, _ = self._picture(photo, lambda path: np.asarray(read_photo(path)))
        _check_size(source, size, photo, (len(pixels), *pixels.shape[-2:]))
        if pixels.shape[1] != self.config.image_channels:
            raise DataError(f"{_name(photo)} has {pixels.shape[1]} channels: give a photo of 3")
        areas = ids if ids is not None else label
        if areas is None:
            raise ConfigError("a style is taken instance by instance: give an instance map")
        features = self.model.encode(pixels, areas)
        if features is None:
            raise ConfigError("the checkpoint holds no encoder: it cannot take the style from a photo")
        return features

    def _styled(self, label: Tensor | None, ids: Tensor | None, styles: Sequence[Styles]) -> Tensor:
        areas = ids if ids is not None else label
        if areas is None:
            raise ConfigError("styles belong to instances: give an instance map")
        if len(styles) != len(areas):
            raise ConfigError(f"{len(styles)} styles are given for a batch of {len(areas)}: give one for each map")
        for one in styles:
            if one.encoder and self.encoder_id and one.encoder != self.encoder_id:
                raise CheckpointError(
                    f"the styles were made with encoder {one.encoder}, but the model has {self.encoder_id}: make them "
                    "with this model"
                )
        index = instance_index(areas)
        rows = [
            feature_rows(one, index.ids[rows_of(index, k)], self.config.feature_channels)
            for k, one in enumerate(styles)
        ]
        features, known = (torch.cat(parts) for parts in zip(*rows, strict=True))
        pixels = instance_broadcast(features, index)
        if bool(known.all()):
            return pixels
        has_style = instance_broadcast(known[:, None].float(), index) > 0
        return torch.where(has_style, pixels, self._mean_features(label, ids))

    def _mean_features(self, label: Tensor | None, ids: Tensor | None) -> Tensor:
        """The mean style of each pixel's class."""
        if self.class_features is None:
            raise ConfigError(
                "the checkpoint holds no mean style of its classes: give every instance a style, or a photo to take "
                "the styles from"
            )
        classes = label if label is not None else ids
        assert classes is not None
        classes = classes.long() if label is not None else torch.zeros_like(classes, dtype=torch.int64)
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
    file = find_checkpoint(Path(path), checkpoint)
    model, info = load_model(file, ema=ema, device=chosen)
    return Pipeline(model, info.tensors.get(CLASS_MEAN), chosen, precision, file)


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
