"""Where the styles of instances come from: clusters, a photo, styles that are given, or the means of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hdgan.checkpoints import STYLES_FILE, beside, copying, unchanging_name
from hdgan.errors import CheckpointError, ConfigError
from hdgan.families import ImageModel, ModelConfig
from hdgan.inference.maps import ImageSource, Maps, read_photo_of
from hdgan.styles.bank import StyleBank
from hdgan.styles.sample import Styles, feature_rows

if TYPE_CHECKING:
    from hdgan.inference.pipeline import Pipeline


def bank_of(pipeline: Pipeline) -> StyleBank:
    """Read the clusters that lie next to the model's file, for `Pipeline.bank`."""
    _require_features(pipeline.config, "it has no styles")
    if pipeline.file is None:
        raise CheckpointError("the pipeline was not loaded from a file, so there is no folder for its styles")
    file = beside(pipeline.file, STYLES_FILE)
    if not file.exists() and (name := unchanging_name(pipeline.file)):
        raise CheckpointError(f"the model {name} has no clusters of styles: to create some, {copying(pipeline.file)}")
    bank = StyleBank.load(file)
    bank.require(pipeline.encoder_id, pipeline.config.feature_channels, str(pipeline.file))
    return bank


def features_of(
    pipeline: Pipeline, maps: Maps, photo: ImageSource | None, styles: Styles | Sequence[Styles] | None
) -> Tensor | None:
    """The features at every pixel, [B, feature_channels, H, W]; None for a model without. As of `Pipeline.given`."""
    if photo is not None and styles is not None:
        raise ConfigError("both a photo and styles are given: give only one of them")
    if photo is not None:
        return encoded(pipeline, maps, photo)
    if styles is not None:
        each = [styles] * maps.size[0] if isinstance(styles, Styles) else styles
        return maps.spread(styled_rows(pipeline, maps, each))
    return maps.spread(_mean_rows(pipeline, maps)) if pipeline.config.feature_channels else None


def encoder_of(model: ImageModel) -> nn.Module:
    """The encoder of a model, for `Pipeline.require_encoder`."""
    _require_features(model.config, "a photo cannot give it a style")
    if model.encoder is None:
        raise ConfigError("the checkpoint contains no encoder: it cannot take the style from a photo")
    return model.encoder


def encoded(pipeline: Pipeline, maps: Maps, photo: ImageSource) -> Tensor:
    """E's features, averaged over the photo's instances, [B, feature_channels, H, W].

    Raises:
        ConfigError: there is no encoder.
        DataError: the photo cannot be read, or does not have the size of the maps.
    """
    encoder = pipeline.require_encoder()
    return encoder(read_photo_of(maps, photo, pipeline.config, pipeline.device), maps.index)


def styled_rows(pipeline: Pipeline, maps: Maps, styles: Sequence[Styles]) -> Tensor:
    """The features of every instance of a batch: those of its style, or the mean of its class if it has none.

    Args:
        pipeline: the model.
        maps: B of them.
        styles: one for each.

    Returns:
        [N, feature_channels] float32, in the order of the index of the maps.

    Raises:
        ConfigError: the model or an instance cannot take the styles, or there is no mean where one is needed.
        CheckpointError: the styles are of another encoder.
    """
    _require_features(pipeline.config, "it cannot be given styles")
    if len(styles) != maps.size[0]:
        raise ConfigError(f"{len(styles)} styles are given for {maps.size[0]} maps: give one for each")
    for of_map in styles:
        of_map.require(pipeline.encoder_id)
    features, known = feature_rows(styles, maps.index, maps.classes, pipeline.config.feature_channels)
    return features if bool(known.all()) else torch.where(known[:, None], features, _mean_rows(pipeline, maps))


def _mean_rows(pipeline: Pipeline, maps: Maps) -> Tensor:
    """The mean of each instance's class, [N, feature_channels]. All instances of A->B training are one class."""
    means = pipeline.class_features
    if means is None:
        raise ConfigError(
            "the checkpoint does not contain the mean styles of its classes: give a photo to take the styles "
            "from, or a style for every instance"
        )
    found = [0] * len(maps.index.ids) if maps.label is None else maps.classes
    classes = torch.tensor(found, device=means.device)
    known = (classes >= 0) & (classes < len(means))
    return torch.where(known[:, None], means[classes * known], means.mean(0))


def _require_features(config: ModelConfig, what: str) -> None:
    if not config.feature_channels:
        raise ConfigError(
            f"the model was trained without features, so {what}: train one with --model.feature-channels 3"
        )
