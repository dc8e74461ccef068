"""The option of `hdgan generate` that takes maps of the built-in scenes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from hdgan.config.serialization import check_value
from hdgan.data import sample_geometry
from hdgan.data.config import Scenes, ScenesConfig
from hdgan.errors import ConfigError
from hdgan.families.saving import read_metadata
from hdgan.inference.pipeline import Pipeline
from hdgan.training.run_folder import training_of


def trained_scenes(pipeline: Pipeline) -> ScenesConfig | None:
    """The built-in scenes that a model was trained on, at the size of its training; None if it knows of none.

    Raises:
        ConfigError, CheckpointError: what the model's file says of its training is damaged.
    """
    assert pipeline.file is not None
    metadata = read_metadata(pipeline.file)
    if "train" not in metadata:
        return None
    config, size = training_of(pipeline.file, metadata, pipeline.config)
    if not config.data.uses_scenes:
        return None
    scenes = config.data.scenes
    width, height = sample_geometry((scenes.width, scenes.height), size).size
    return replace(scenes, width=width, height=height)


def choose_scenes(run: Path, pipeline: Pipeline, number: int, out: Path, others: Iterable[str]) -> ScenesConfig:
    """The held-out scenes of --scenes.

    Args:
        run: the model, as it was given.
        pipeline: the same, loaded.
        number: of scenes.
        out: where the images go.
        others: the options that give maps or photos and are given, too.

    Raises:
        ConfigError: the model was not trained on scenes, or an option does not go with them.
    """
    check_value(Scenes, number, "scenes")
    for other in others:
        raise ConfigError(f"--scenes draws maps and photos of its own: leave --scenes or {other} out")
    if out.suffix.lower() in Image.registered_extensions() and not out.is_dir():
        raise ConfigError(f"--out {out} is one file, but --scenes also writes the maps of its scenes: give a folder")
    scenes = trained_scenes(pipeline)
    if scenes is None:
        raise ConfigError(
            f"{run} was not trained on the built-in scenes: give maps of its own kind instead of --scenes"
        )
    return replace(scenes, test=number)
