"""The option of `hdgan generate` that takes maps of the built-in scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hdgan.config.serialization import check_value
from hdgan.data import SizeConfig, sample_geometry
from hdgan.data.config import Scenes, ScenesConfig
from hdgan.errors import ConfigError
from hdgan.families.saving import read_metadata
from hdgan.files.images import names_an_image
from hdgan.inference.pipeline import Pipeline
from hdgan.training.run_folder import training_of


def scenes_of(pipeline: Pipeline) -> tuple[ScenesConfig, SizeConfig] | None:
    """The built-in scenes that a model was trained on, and the size at which it saw them; None if its file names none.

    Raises:
        ConfigError, CheckpointError: what the file says of the training is damaged.
    """
    assert pipeline.file is not None
    metadata = read_metadata(pipeline.file)
    if "train" not in metadata:
        return None
    config, size = training_of(pipeline.file, metadata, pipeline.config)
    return (config.data.scenes, size) if config.data.uses_scenes else None


def choose_scenes(run: Path, pipeline: Pipeline, number: int, out: Path, others: Sequence[str]) -> ScenesConfig:
    """The held-out scenes of --scenes, in the size of the training.

    Args:
        run: the model, as it was given.
        pipeline: the same, loaded.
        number: of scenes.
        out: where the images go.
        others: the options for maps and photos that are given as well.

    Raises:
        ConfigError: the model was not trained on scenes, or an option does not go with them.
    """
    check_value(Scenes, number, "scenes")
    if others:
        raise ConfigError(f"--scenes draws maps and photos of its own: leave --scenes or {others[0]} out")
    if names_an_image(out):
        raise ConfigError(f"--out {out} is one file, but --scenes also writes the maps of its scenes: give a folder")
    found = scenes_of(pipeline)
    if found is None:
        raise ConfigError(f"{run} was not trained on the built-in scenes: give it images of its own kind, not --scenes")
    scenes, size = found
    width, height = sample_geometry((scenes.width, scenes.height), size).size
    return replace(scenes, width=width, height=height, test=number)
