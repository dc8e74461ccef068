"""Models as files: safetensors that contain their architecture, so that a file is all that loading needs.

Tensors are named `generator.…`, `discriminator.…`, `encoder.…`, their moving averages `ema.generator.…` and
`ema.encoder.…`; the metadata entry `hdgan` is JSON with the format's number, hdgan's version and the `ModelConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdgan.config.serialization import from_plain, to_plain
from hdgan.errors import CheckpointError
from hdgan.families.common.config import ModelConfig
from hdgan.families.common.model import ImageModel
from hdgan.families.registry import AnyModelConfig, build_model
from hdgan.weights import open_safetensors, require_finite
from hdgan.weights.modules import (
    build_described,
    load_tensors,
    metadata_of,
    require_fitting,
    save_described,
    shapes_of,
    tensor_shapes,
)

CLASS_MEAN = "styles.class_mean"
"""Name of the mean feature of each class, [n_classes, feature_channels] (one class for A->B): the default style."""
NETWORKS = ("generator", "discriminator", "encoder")
_EMA = "ema."


@dataclass(frozen=True)
class SavedInfo:
    """What a file contains in addition to the networks."""

    metadata: dict[str, Any]
    """format, version, model, and whatever else was stored."""
    tensors: dict[str, Tensor]
    """Tensors that belong to no network, such as `styles.class_mean`."""
    missing: tuple[str, ...]
    """Networks that are in the configuration but not in the file, since it was converted without them: None in the
    model."""


def save_model(
    path: Path,
    model: ImageModel,
    ema: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype | None = None,
    new: bool = False,
) -> None:
    """Write a model so that a crash leaves the old file or the new one.

    Args:
        path: usually *.safetensors.
        model: its configuration and its networks but those that are None.
        ema: averaged weights under the model's keys (`generator.…`, `encoder.…`), in memory of their own.
        extra: further metadata that JSON can hold.
        tensors: further tensors, under names of their own.
        dtype: of the weights in the file, such as torch.bfloat16; None keeps theirs. Buffers and averages keep theirs.
            `load_model` makes float32 of all.
        new: the file must not exist, not even at the moment when this one is complete.

    Raises:
        HdganError: the file cannot be written, or with `new` it exists.
    """
    stored = dict(model.state_dict())
    if dtype is not None:
        stored |= {name: weight.detach().to(dtype) for name, weight in model.named_parameters()}
    stored |= {f"{_EMA}{key}": value for key, value in (ema or {}).items()}
    stored |= tensors or {}
    save_described(path, stored, {**(extra or {}), "model": to_plain(model.config)}, new=new)


def load_model(path: Path, *, ema: bool = True, device: str | torch.device = "cpu") -> tuple[ImageModel, SavedInfo]:
    """Build the model that a file describes and load it strictly: every tensor is used, none is missing.

    Args:
        path: written by `save_model`.
        ema: take the averaged weights of generator and encoder where there are any.
        device: where the model goes.

    Raises:
        CheckpointError: the file is missing, damaged, not hdgan's, newer than this hdgan, its tensors do not fit the
            architecture it names, or a tensor is not finite.
    """
    path = Path(path)
    with open_safetensors(path, str(device)) as file:
        return _load(path, file, ema, device)


def read_metadata(path: Path) -> dict[str, Any]:
    """What a file says about its model, without its tensors: format, version, model, and whatever else was stored.

    Raises:
        CheckpointError: the file is not a readable one of hdgan's.
    """
    with open_safetensors(path) as file:
        return metadata_of(path, file)


def _load(path: Path, file: Any, ema: bool, device: str | torch.device) -> tuple[ImageModel, SavedInfo]:
    metadata = metadata_of(path, file)
    config: ModelConfig = from_plain(AnyModelConfig, metadata.get("model"), f"{path}, model")
    shapes = shapes_of(file)
    model = build_described(path, lambda: build_model(config), len(shapes))
    ours = {key: shape for key, shape in shapes.items() if _network(key) in NETWORKS}
    present = {_network(key) for key in ours}
    # A file without generator is damaged; without the others it was converted so.
    missing = tuple(name for name, _ in model.named_children() if name not in present and name != "generator")
    for name in missing:
        setattr(model, name, None)
    expected = tensor_shapes(model.state_dict())
    averaged = {key: shape for key, shape in shapes.items() if key.startswith(_EMA)}
    in_ema = {_network(key.removeprefix(_EMA)) for key in averaged}
    expected |= {f"{_EMA}{key}": shape for key, shape in expected.items() if _network(key) in in_ema}
    require_fitting(path, expected, ours | averaged)

    names = {key: f"{_EMA}{key}" if ema and f"{_EMA}{key}" in averaged else key for key in ours}
    further = {key: file.get_tensor(key) for key in shapes if key not in ours and not key.startswith(_EMA)}
    _require_means(path, further.get(CLASS_MEAN), config)
    load_tensors(path, file, model, names, device)
    require_finite(further, str(path))
    return model, SavedInfo(metadata, further, missing)


def _require_means(path: Path, means: Tensor | None, config: ModelConfig) -> None:
    """Refuse mean styles that are not the features of this model."""
    if means is None:
        return
    if means.dim() != 2 or len(means) == 0 or means.shape[1] != config.feature_channels:
        raise CheckpointError(
            f"{path}: {CLASS_MEAN} has shape {tuple(means.shape)} instead of (classes, {config.feature_channels}); it "
            "is damaged or was edited: use another checkpoint"
        )


def _network(key: str) -> str:
    return key.split(".")[0]
