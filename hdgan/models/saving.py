"""Models as files: safetensors that carry their architecture, so that nothing has to be said again to load one.

Tensors are named `generator.…`, `discriminator.…`, `encoder.…`, their moving averages `ema.generator.…` and
`ema.encoder.…`; the metadata entry `hdgan` is JSON with the format's number, hdgan's version and the `ModelConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hdgan.config_io import from_plain, to_plain
from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.models.base import ImageModel
from hdgan.models.config import ModelConfig
from hdgan.models.families import AnyModelConfig, build_model

FORMAT = 1
"""Raised when an older hdgan could not read a newer file."""
CLASS_MEAN = "styles.class_mean"
"""Name of the mean feature of each class, [n_classes, feature_channels] (one class for A->B): the default style."""
NETWORKS = ("generator", "discriminator", "encoder")
_EMA = "ema."


@dataclass(frozen=True)
class SavedInfo:
    """What a file holds beside the networks."""

    metadata: dict[str, Any]
    """format, version, model, and whatever else was stored."""
    tensors: dict[str, Tensor]
    """Tensors that belong to no network, such as `styles.class_mean`."""
    missing: tuple[str, ...]
    """Networks that the configuration names and the file lacks (converted without them): None in the model."""


def save_model(
    path: Path,
    model: ImageModel,
    ema: Mapping[str, Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model so that a crash leaves the old file or the new one.

    Args:
        path: usually *.safetensors.
        model: its configuration and its networks but those that are None.
        ema: averaged weights under the model's keys (`generator.…`, `encoder.…`), in memory of their own.
        extra: further metadata that JSON can hold.
        tensors: further tensors, under names of their own.

    Raises:
        HdganError: the file cannot be written.
    """
    stored = dict(model.state_dict())
    stored |= {f"{_EMA}{key}": value for key, value in (ema or {}).items()}
    stored |= tensors or {}
    stored = {key: value.detach().cpu().contiguous() for key, value in stored.items()}
    header = {**(extra or {}), "format": FORMAT, "version": version("hdgan"), "model": to_plain(model.config)}
    with atomic_file(path) as temporary:
        save_file(stored, temporary, {"hdgan": json.dumps(header)})


def load_model(path: Path, *, ema: bool = True, device: str | torch.device = "cpu") -> tuple[ImageModel, SavedInfo]:
    """Build the model that a file describes and load it strictly: every tensor is used, none is missing.

    Args:
        path: written by `save_model`.
        ema: take the averaged weights of generator and encoder where there are any.
        device: where the model goes.

    Raises:
        CheckpointError: the file is missing, damaged, not hdgan's, newer than this hdgan, or its tensors do not fit the
            architecture it names.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist; check the path")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return _load(path, file, ema, device)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a readable safetensors file ({error}); it is truncated or of "
            "another format: copy it again, or convert a checkpoint of NVIDIA/pix2pixHD or "
            "pytorch-CycleGAN-and-pix2pix with `hdgan convert`"
        ) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What a file says about its model, without its tensors: format, version, model, and whatever else was stored.

    Raises:
        CheckpointError: the file is not a readable one of hdgan's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _metadata_of(path, file.metadata())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}): copy it again") from error


def _load(path: Path, file: Any, ema: bool, device: str | torch.device) -> tuple[ImageModel, SavedInfo]:
    metadata = _metadata_of(path, file.metadata())
    config: ModelConfig = from_plain(AnyModelConfig, metadata.get("model"), f"{path}, model")
    with torch.device("meta"):
        model = build_model(config)
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    ours = {key: shape for key, shape in shapes.items() if _network(key) in NETWORKS}
    present = {_network(key) for key in ours}
    # A file without generator is damaged; without the others it was converted so.
    missing = tuple(name for name, _ in model.named_children() if name not in present and name != "generator")
    for name in missing:
        setattr(model, name, None)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    averaged = {key[len(_EMA) :]: shape for key, shape in shapes.items() if key.startswith(_EMA)}
    in_ema = {_network(key) for key in averaged}
    _require_equal(path, wanted, ours)
    _require_equal(path, {k: s for k, s in wanted.items() if _network(k) in in_ema}, averaged, _EMA)

    model.to_empty(device=device)
    model.load_state_dict({key: file.get_tensor(f"{_EMA}{key}" if ema and key in averaged else key) for key in ours})
    further = {key: file.get_tensor(key) for key in shapes if key not in ours and not key.startswith(_EMA)}
    return model, SavedInfo(metadata, further, missing)


def _metadata_of(path: Path, header: Mapping[str, str] | None) -> dict[str, Any]:
    text = (header or {}).get("hdgan")
    if text is None:
        raise CheckpointError(
            f"{path} was not written by hdgan (no hdgan entry in its metadata); name a checkpoint of hdgan"
        )
    try:
        metadata = json.loads(text)
        written_format = metadata["format"]
        newer = written_format > FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: the hdgan entry of its metadata is damaged ({error!r}); copy the file again"
        ) from error
    if newer:
        raise CheckpointError(
            f"{path} has format {written_format}, written by hdgan {metadata.get('version')}; this hdgan "
            f"{version('hdgan')} reads up to format {FORMAT}: upgrade hdgan"
        )
    return metadata


def describe_differences(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], limit: int = 3
) -> str:
    """Say in one line how the tensors of a file differ from those of the architecture; empty if they do not.

    Args:
        wanted: shapes by key, of the architecture.
        found: shapes by key, of the file.
        limit: examples of each kind of difference.
    """
    missing = [key for key in wanted if key not in found]
    unknown = [key for key in found if key not in wanted]
    reshaped = [f"{k} is {found[k]} instead of {wanted[k]}" for k in wanted if k in found and found[k] != wanted[k]]
    kinds = {"missing": missing, "not part of the architecture": unknown, "of another shape": reshaped}
    return "; ".join(f"{len(keys)} {kind}: {_some(keys, limit)}" for kind, keys in kinds.items() if keys)


def _require_equal(
    path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], prefix: str = ""
) -> None:
    differences = describe_differences(
        {prefix + key: shape for key, shape in wanted.items()}, {prefix + key: shape for key, shape in found.items()}
    )
    if differences:
        raise CheckpointError(
            f"{path}: its tensors do not fit the architecture it names ({differences}); it is damaged or was edited: "
            "use another checkpoint"
        )


def _some(items: Iterable[str], limit: int) -> str:
    items = list(items)
    return ", ".join(items[:limit]) + (", …" if len(items) > limit else "")


def _network(key: str) -> str:
    return key.split(".")[0]
