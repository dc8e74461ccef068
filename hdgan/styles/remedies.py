"""What to do about a file of features or clusters that is missing or damaged: the commands that write it, as they can
be typed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.checkpoints import FEATURES_FILE, MODEL_FILE, STYLES_FILE, beside, copying, model_of, unchanging_name
from hdgan.config.urls import is_url
from hdgan.weights import open_safetensors
from hdgan.weights.modules import metadata_of


@dataclass(frozen=True)
class _Model:
    """What the commands need to know of a model."""

    name: str
    """How they take it."""
    options: str = ""
    """The other options that they need, after a space."""
    has_encoder: bool = True
    has_features: bool = False
    """Whether E's features are beside it."""


def how_to_encode(table: Path) -> str:
    """The clause that says how to write a file of features."""
    model = _model_of(table, FEATURES_FILE)
    return f"encode the training images with `hdgan styles encode {model.name}{model.options}`"


def how_to_cluster(bank: Path) -> str:
    """The clause that says how to write a file of clusters, if need be after the features."""
    model = _model_of(bank, STYLES_FILE)
    if not model.has_encoder:
        return (
            f"{model.name} has no encoder to create it with: convert the model again with --encoder FILE, or take "
            f"clusters of NVIDIA's code with `hdgan styles import-nvidia {model.name} FILE`"
        )
    cluster = f"`hdgan styles cluster {model.name}{model.options}`"
    if model.has_features:
        return f"create it with {cluster}"
    return f"create it with `hdgan styles encode {model.name}{model.options}` and then {cluster}"


def how_to_encode_again(table: Path) -> str:
    """The clause that says how to replace a damaged file of features. Its model is named, not read."""
    return f"delete it and write it again with `hdgan styles encode {_name_of(model_of(table, FEATURES_FILE))}`"


def how_to_cluster_again(bank: Path) -> str:
    """The clause that says how to replace a damaged file of clusters. Its model is named, not read."""
    return f"delete it and create it again with `hdgan styles cluster {_name_of(model_of(bank, STYLES_FILE))}`"


def how_to_renew(model: Path) -> str:
    """The clause that says how to write features and clusters of a model again, which those that exist do not suit.

    Args:
        model: its file.
    """
    if unchanging_name(model):
        return f"to create others, {copying(model)}"
    name = _typed(model)
    return f"create its styles with `hdgan styles encode {name}` and `hdgan styles cluster {name}`"


def _model_of(file: Path, kind: str) -> _Model:
    """The model that a file belongs to."""
    path = model_of(file, kind)
    if not path.is_file():
        return _Model(_name_of(path))
    with open_safetensors(path) as opened:
        metadata, names = metadata_of(path, opened), list(opened.keys())
    return _Model(
        _name_of(path),
        "" if _finds_data(metadata) else " --root FOLDER",
        any(name.startswith("encoder.") for name in names),
        beside(path, FEATURES_FILE).is_file(),
    )


def _name_of(model: Path) -> str:
    """A model as commands take it; RUN stands for one that is not there."""
    return _typed(model) if model.is_file() else "RUN"


def _typed(model: Path) -> str:
    """A model as commands take it: its checkpoint folder or its file."""
    return shlex.quote(str(model.parent if model.name == MODEL_FILE else model))


def _finds_data(metadata: Mapping[str, Any]) -> bool:
    """Whether the data that a model was trained on can be found without an option: built-in scenes, or what its file
    names."""
    data = train.get("data") if isinstance(train := metadata.get("train"), Mapping) else None
    if not isinstance(data, Mapping):
        return False
    root = data.get("root")
    return root is None or (isinstance(root, str) and (is_url(root) or Path(root).is_dir()))
