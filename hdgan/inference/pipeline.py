"""A trained model that makes pictures from maps given as files, Pillow images, arrays or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hdgan.checkpoints import beside, find_checkpoint
from hdgan.devices import choose_device, network_format
from hdgan.errors import CheckpointError, ConfigError, DataError
from hdgan.families import ImageModel
from hdgan.families.saving import CLASS_MEAN, load_model
from hdgan.inference.maps import Maps, Source, read_maps, read_photo_of
from hdgan.ops import instance_broadcast, instance_reduce
from hdgan.seeding import seeded
from hdgan.styles.bank import STYLES_FILE, StyleBank
from hdgan.styles.sample import Styles, feature_rows, styles_of
from hdgan.styles.table import fingerprint


class Pipeline:
    """Makes pictures with a trained generator.

    Args:
        model: the networks; its discriminator is not used.
        class_features: [n_classes, feature_channels], the style that a class has where no photo gives one.
        device: where the model runs.
        precision: "float32", or "bfloat16" for autocast.
        file: the model's, beside which its styles lie.

    Raises:
        ConfigError: another precision.
    """

    def __init__(
        self,
        model: ImageModel,
        class_features: Tensor | None = None,
        device: torch.device | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        file: Path | None = None,
    ) -> None:
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision is {precision!r}: give float32 or bfloat16")
        self.device = device or torch.device("cpu")
        model.discriminator = None
        model.to(self.device, memory_format=network_format(self.device))  # type: ignore[call-overload]
        self.model = model.eval().requires_grad_(False)
        self.config = model.config
        self.class_features = None if class_features is None else class_features.to(self.device)
        self.precision = precision
        self.file = file

    @torch.no_grad()
    def __call__(
        self,
        source: Source | Maps,
        instance: Source | None = None,
        *,
        photo: Source | None = None,
        styles: Styles | Sequence[Styles] | None = None,
        seed: int | None = None,
        variant: int = 0,
    ) -> Tensor:
        """Make a picture of the size of its input.

        Args:
            source: label map, or for a model trained on A->B pairs the input picture. A path, a Pillow image, an array
                or a tensor: label maps as integers [H, W] or [B, H, W], pictures as [H, W, C] arrays (8 or 16 bits, or
                float in [-1, 1]) or float tensors [C, H, W] or [B, C, H, W] in [-1, 1]. Or what `read` returned.
            instance: instance map of the same size; needed if the model was trained with instances.
            photo: takes the style of each instance from this photo; without it each class has its mean style.
            styles: gives each instance its style; one that is missing has the mean style of its class. For a batch
                one object for all maps, or one for each.
            seed: 0 or more; with the variant it repeats the noise of a model that draws some, as pix2pix's does by its
                dropout. None goes on with torch's generator.
            variant: another picture of the same input, from 0, by a model that makes several by itself
                (`ModelConfig.variants`): one of its images, or other noise of the same seed.

        Returns:
            [image_channels, H, W] float32 in [0, 1] on the pipeline's device, of batched input [B, image_channels, H,
            W].

        Raises:
            DataError: a file or value cannot be used: labels out of range, sizes that differ.
            ConfigError: the model needs an instance map or photo that is not given, or cannot use what is given.
            CheckpointError: the styles are of another encoder.
        """
        self._require_variant(variant)
        if seed is not None and seed < 0:
            raise ConfigError(f"seed is {seed}: give 0 or more")
        maps = read_maps(source, instance, self.config, self.device)
        if photo is not None and styles is not None:
            raise ConfigError("a photo and styles are given: give one of them")
        with self._autocast(), nullcontext() if seed is None else seeded(self.device, seed, variant):
            condition = self.model.condition(maps.label, maps.ids, maps.picture)
            features = None
            if photo is not None:
                features = self._encoded(maps, photo)
            elif styles is not None:
                each = [styles] * maps.size[0] if isinstance(styles, Styles) else styles
                features = instance_broadcast(self._given_rows(maps, each), maps.index)
            elif self.config.feature_channels:
                features = instance_broadcast(self._mean_rows(maps), maps.index)
            image = self.model.generate(condition, features, variant)
        image = (image.float().clamp(-1, 1) + 1) / 2
        return image if maps.batched else image[0]

    @torch.no_grad()
    def read(self, source: Source, instance: Source | None = None) -> Maps:
        """Read and check the input of several calls once; they take the result as their `source`.

        Args:
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call.
        """
        return read_maps(source, instance, self.config, self.device)

    @cached_property
    def bank(self) -> StyleBank:
        """The clusters of the model's classes, as `hdgan styles cluster` leaves them beside its file.

        Raises:
            CheckpointError: there are none, or they are of another encoder.
            ConfigError: the model has no features.
        """
        self._require_features("it has no styles")
        if self.file is None:
            raise CheckpointError("the pipeline was not loaded from a file, beside which its styles would lie")
        bank = StyleBank.load(beside(self.file, STYLES_FILE))
        bank.require(self.encoder_id, self.config.feature_channels, str(self.file))
        return bank

    @cached_property
    def encoder_id(self) -> str:
        """`fingerprint` of E, by which styles know their model; empty without E."""
        return "" if self.model.encoder is None else fingerprint(self.model.encoder)

    @torch.no_grad()
    def instances(self, source: Source | Maps, instance: Source | None = None) -> dict[int, int]:
        """The class of every instance of one map, by instance id (by label without an instance map).

        The class is the label that most of the instance has, or without label maps what the id says.

        Args:
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        return self._classes(read_maps(source, instance, self.config, self.device))

    @torch.no_grad()
    def encode(self, photo: Source, source: Source | Maps, instance: Source | None = None) -> Styles:
        """The style of every instance of one photo, to change, mix or keep.

        Args:
            photo: of the size of the maps.
            source, instance: as in a call.

        Raises:
            DataError, ConfigError: as in a call, and for a batch.
        """
        maps = read_maps(source, instance, self.config, self.device)
        classes = self._classes(maps)
        with self._autocast():
            features = instance_reduce(self._encoded(maps, photo).float(), maps.index)
        return styles_of(classes, features.cpu().numpy(), self.encoder_id)

    @torch.no_grad()
    def complete(self, styles: Styles, source: Source | Maps, instance: Source | None = None) -> Styles:
        """Styles of all instances of one map: those that are missing get the mean style of their class.

        A call with these styles makes the same picture. Mixing two such styles goes all the way from one to the other.

        Args:
            styles: of some of the instances.
            source, instance: as in a call.

        Raises:
            DataError, ConfigError, CheckpointError: as in a call, and for a batch.
        """
        maps = read_maps(source, instance, self.config, self.device)
        classes = self._classes(maps)
        rows = self._given_rows(maps, [styles]).cpu().numpy()
        whole = styles_of(classes, rows, self.encoder_id).instances
        return Styles({id: styles.instances.get(id, whole[id]) for id in classes}, self.encoder_id)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _require_variant(self, variant: int) -> None:
        most = self.config.variants
        if variant < 0 or (most is not None and variant >= most):
            raise ConfigError(
                f"variant is {variant}: the model makes {most or 'any number of'} pictures of an input, counted from 0"
            )

    def _require_features(self, what: str) -> None:
        if not self.config.feature_channels:
            raise ConfigError(
                f"the model was trained without features, so {what}: train one with --model.feature-channels 3"
            )

    def _classes(self, maps: Maps) -> dict[int, int]:
        if maps.size[0] > 1:
            raise DataError(f"{maps.name} is a batch of {maps.size[0]}: give one map")
        return dict(zip(maps.index.ids.tolist(), maps.classes, strict=True))

    def _encoded(self, maps: Maps, photo: Source) -> Tensor:
        """E's features, averaged over the photo's instances, [B, feature_channels, H, W]."""
        self._require_features("a photo cannot give it a style")
        if self.model.encoder is None:
            raise ConfigError("the checkpoint holds no encoder: it cannot take the style from a photo")
        return self.model.encoder(read_photo_of(maps, photo, self.config, self.device), maps.index)

    # Each of these gives the features of every instance of the batch, [N, feature_channels].

    def _given_rows(self, maps: Maps, styles: Sequence[Styles]) -> Tensor:
        """The given ones, and where an instance has none the mean of its class."""
        self._require_features("it cannot be given styles")
        if len(styles) != maps.size[0]:
            raise ConfigError(f"{len(styles)} styles are given for {maps.size[0]} maps: give one for each")
        for one in styles:
            one.require(self.encoder_id)
        features, known = feature_rows(styles, maps.index, maps.classes, self.config.feature_channels)
        return features if bool(known.all()) else torch.where(known[:, None], features, self._mean_rows(maps))

    def _mean_rows(self, maps: Maps) -> Tensor:
        """The mean of each instance's class; all of A->B training are one class."""
        if self.class_features is None:
            raise ConfigError(
                "the checkpoint holds no mean style of its classes: give a photo to take the style from, or a style "
                "for every instance"
            )
        means = self.class_features
        found = [0] * len(maps.index.ids) if maps.label is None else maps.classes
        classes = torch.tensor(found, device=means.device)
        known = (classes >= 0) & (classes < len(means))
        return torch.where(known[:, None], means[classes * known], means.mean(0))


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
