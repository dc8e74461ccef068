"""Whether runs can be compared on a dataset. This is checked before any image is generated or a scorer is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from hdgan.config.options import option
from hdgan.config.serialization import check_value
from hdgan.data import PairedDataset
from hdgan.errors import ConfigError
from hdgan.inference.pipeline import Pipeline

EvaluatedStyles: TypeAlias = Literal["mean", "random"]
"""The styles of a model with features: the mean of each class, or a random cluster of its class for each instance."""


def common_classes(runs: Sequence[Path], pipelines: Sequence[Pipeline]) -> int:
    """The number of classes that all runs have; 0 for A->B.

    Raises:
        ConfigError: they have different numbers.
    """
    first = pipelines[0].config.n_labels
    for run, pipeline in zip(runs, pipelines, strict=True):
        if pipeline.config.n_labels != first:
            raise ConfigError(
                f"{runs[0]} has {_classes(first)} and {run} has {_classes(pipeline.config.n_labels)}: runs can only "
                "be compared on the same label maps; evaluate these separately"
            )
    return first


def _classes(n_labels: int) -> str:
    return f"{n_labels} classes" if n_labels else "images as its input"


def require_compatible(
    runs: Sequence[Path], pipelines: Sequence[Pipeline], dataset: PairedDataset, styles: EvaluatedStyles = "mean"
) -> None:
    """Check that each run can generate images from the dataset that can be compared with its photos.

    Raises:
        ConfigError: a run cannot; the first such run is named.
    """
    first, dontcare = dataset.pairs[0], dataset.data.dontcare
    for run, pipeline in zip(runs, pipelines, strict=True):
        config = pipeline.config
        if config.instances and first.ids is None:
            raise ConfigError(f"{run} was trained with instance maps, but {first.stem} and its split have none")
        if not config.n_labels and config.input_channels != dataset.input_channels:
            raise ConfigError(
                f"{run} takes images with {config.input_channels} channels, but {first.input} has "
                f"{dataset.input_channels}"
            )
        if config.image_channels != dataset.photo_kind.channels:
            raise ConfigError(
                f"{run} generates images with image_channels {config.image_channels}, but photos have "
                f"{dataset.photo_kind.channels}: leave this run out"
            )
        if config.feature_channels and styles == "mean" and pipeline.class_features is None:
            raise ConfigError(
                f"{run} was trained with features, but its file does not contain the mean styles of its classes, "
                "which generation needs: give a checkpoint that hdgan's training saved"
            )
        if dontcare is not None and dontcare >= config.n_labels > 0 and config.dontcare != dontcare:
            raise ConfigError(
                f"{run} cannot take label {dontcare}, which is not a class for {runs[0]} (dontcare {dontcare} and "
                f"{config.dontcare}): evaluate them separately"
            )


def require_styles(pipelines: Sequence[Pipeline], styles: EvaluatedStyles) -> None:
    """Check that random styles, if they are asked for, can be drawn for all runs with features.

    Raises:
        ConfigError: no run has features, so that the choice would have no effect.
        CheckpointError: a run has no clusters, or those of another encoder.
    """
    check_value(EvaluatedStyles, styles, "styles")
    if styles == "mean":
        return
    styled = [pipeline for pipeline in pipelines if pipeline.config.feature_channels]
    if not styled:
        raise ConfigError(f"{option('styles')} {styles} has no effect on runs without features: leave it out")
    for pipeline in styled:
        _ = pipeline.bank
