"""The option --classes of commands that write a model: the names that go into its file."""

from __future__ import annotations

from pathlib import Path

from hdgan.config.serialization import from_plain
from hdgan.data.class_file import read_overrides
from hdgan.data.colors import numbered_classes
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError
from hdgan.families.registry import AnyModelConfig
from hdgan.families.saving import read_metadata
from hdgan.training.known_classes import classes_to_keep


def given_classes(model: Path, file: Path | None) -> DatasetSpec | None:
    """The classes that --classes gives to a model; None without the option.

    Args:
        model: file of the model.
        file: of the option, as `read_overrides` reads it. Where it has no colours, those of the model stay.

    Raises:
        ConfigError: the model has no classes.
        DataError: the file cannot be used, or has another number of classes than the model.
        CheckpointError: the names in the model's file are damaged.
    """
    if file is None:
        return None
    config = from_plain(AnyModelConfig, read_metadata(model).get("model"), f"{model}, model")
    n_labels = config.n_labels
    if not n_labels:
        raise ConfigError(f"--classes {file} has no effect: {model} translates images, which have no classes")
    return read_overrides(file, classes_to_keep(model, config) or numbered_classes(n_labels))
