"""Styles that last over the frames of a video: each instance keeps the style of its id."""

from __future__ import annotations

from collections.abc import Callable

from hdgan.errors import ConfigError
from hdgan.inference.maps import Maps
from hdgan.inference.pipeline import Pipeline
from hdgan.styles.sample import Styles


def lasting_styles(pipeline: Pipeline, styles: Styles) -> Callable[[Maps], Styles]:
    """Give the instances of each frame the styles of their ids.

    An instance that has none gets the mean of its class in the frame. So does one that is of another class than its
    style, which is the case where an id is used again for another object.

    Args:
        pipeline: the model.
        styles: of the instances of any frames.

    Returns:
        For the maps of a frame the styles that apply to it, as `Request.styles` needs them.

    Raises:
        CheckpointError: the styles are of another encoder.
        ConfigError: the model has no mean styles of its classes.
    """
    styles.require(pipeline.encoder_id)
    if pipeline.config.feature_channels and pipeline.class_features is None:
        raise ConfigError(
            "the checkpoint does not contain the mean styles of its classes, which instances of later frames get: give "
            "--styles random"
        )

    def of(maps: Maps) -> Styles:
        found = {}
        for id, label in pipeline.instances(maps).items():
            style = styles.instances.get(id)
            if style is not None and style.label == label:
                found[id] = style
        return Styles(found, styles.encoder)

    return of
