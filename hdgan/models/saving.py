"""Models as files: safetensors that carry their architecture, so that nothing has to be said again to load one.

Tensors are named `generator.…`, `discriminator.…`, `encoder.…`, their moving averages `ema.generator.…` and
`ema.encoder.…`; the metadata entry `hdgan` is JSON with the format's number, hdgan's version and the `ModelConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hdgan.config_io import from_plain, to_plain
from hdgan.errors import CheckpointError
from hdgan.files import atomic_file
from hdgan.json_files import parse_json
from hdgan.models.base import ImageModel
from hdgan.models.config import ModelConfig
from hdgan.models.families import AnyModelConfig, build_model
from hdgan.weights import open_safetensors, require_finite
from hdgan.wording import count

M = TypeVar("M", bound=nn.Module)

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
    *,
    new: bool = False,
) -> None:
    """Write a model so that a crash leaves the old file or the new one.

    Args:
        path: usually *.safetensors.
        model: its configuration and its networks but those that are None.
        ema: averaged weights under the model's keys (`generator.…`, `encoder.…`), in memory of their own.
        extra: further metadata that JSON can hold.
        tensors: further tensors, under names of their own.
        new: the file must not exist, not even at the moment when this one is complete.

    Raises:
        HdganError: the file cannot be written, or with `new` it exists.
    """
    stored = dict(model.state_dict())
    stored |= {f"{_EMA}{key}": value for key, value in (ema or {}).items()}
    stored |= tensors or {}
    stored = {key: value.detach().cpu().contiguous() for key, value in stored.items()}
    header = {**(extra or {}), "format": FORMAT, "version": version("hdgan"), "model": to_plain(model.config)}
    with atomic_file(path, new=new) as temporary:
        save_file(stored, temporary, {"hdgan": json.dumps(header)})


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
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    averaged = {key[len(_EMA) :]: shape for key, shape in shapes.items() if key.startswith(_EMA)}
    in_ema = {_network(key) for key in averaged}
    _require_equal(path, wanted, ours)
    _require_equal(path, {k: s for k, s in wanted.items() if _network(k) in in_ema}, averaged, _EMA)

    names = {key: f"{_EMA}{key}" if ema and key in averaged else key for key in ours}
    further = {key: file.get_tensor(key) for key in shapes if key not in ours and not key.startswith(_EMA)}
    _require_means(path, further.get(CLASS_MEAN), config)
    load_tensors(path, file, model, names, device)
    require_finite(further, str(path))
    return model, SavedInfo(metadata, further, missing)


def shapes_of(file: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of an open file, by its name; no tensor is read."""
    return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


class _FewTensors(TorchFunctionMode):
    """Ends the making of modules that have more tensors than they may."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty:
            self.left -= 1
            if self.left < 0:
                raise ValueError("more layers than the file has tensors")
        return func(*args, **(kwargs or {}))


def build_described(path: Path, build: Callable[[], M], n_tensors: int) -> M:
    """Make the modules that a file describes, without memory for their weights.

    The numbers of a damaged or foreign file may ask for any number of layers of any size.

    Args:
        path: the file, for the message.
        build: makes them.
        n_tensors: of the file. Networks that it lacks are made as well, so there may be some more.

    Raises:
        CheckpointError: the file describes far more layers than it has tensors, or layers that cannot be.
    """
    try:
        with torch.device("meta"), _FewTensors(1000 + 4 * n_tensors):
            return build()
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: the architecture that it names cannot be that of its {count(n_tensors, 'tensor')} "
            f"({reason:.100}); it is damaged or was edited: use another checkpoint"
        ) from error


def load_tensors(
    path: Path, file: Any, network: nn.Module, names: Mapping[str, str], device: str | torch.device
) -> None:
    """Give a network without memory the tensors of an open file.

    Args:
        path: the file, for messages.
        file: open.
        network: as `build_described` made it; its shapes are those of the file.
        names: the name in the file of each tensor of the network.
        device: where it goes.

    Raises:
        CheckpointError: a tensor is not finite, or of no floating-point type where the network has one.
    """
    wanted = network.state_dict()
    tensors = {key: file.get_tensor(name) for key, name in names.items()}
    for key, value in tensors.items():
        if value.is_floating_point() != wanted[key].is_floating_point():
            raise CheckpointError(
                f"{path}: {names[key]} is {value.dtype} instead of {wanted[key].dtype}; it is damaged or was edited: "
                "use another checkpoint"
            )
    require_finite({names[key]: value for key, value in tensors.items()}, str(path))
    network.to_empty(device=device)
    network.load_state_dict(tensors)


def _require_means(path: Path, means: Tensor | None, config: ModelConfig) -> None:
    """Refuse mean styles that are not the features of this model."""
    if means is None:
        return
    if means.dim() != 2 or len(means) == 0 or means.shape[1] != config.feature_channels:
        raise CheckpointError(
            f"{path}: {CLASS_MEAN} has shape {tuple(means.shape)} instead of (classes, {config.feature_channels}); it "
            "is damaged or was edited: use another checkpoint"
        )


def metadata_of(path: Path, file: Any) -> dict[str, Any]:
    """What an open file of hdgan's says about its content; raises as `read_metadata`."""
    text = (file.metadata() or {}).get("hdgan")
    if text is None:
        raise CheckpointError(
            f"{path} was not written by hdgan (no hdgan entry in its metadata); name a checkpoint of hdgan"
        )
    metadata = parse_json(text, f"{path}: the hdgan entry of its metadata", "copy the file again")
    try:
        written_format = metadata["format"]
        newer = written_format > FORMAT
    except (TypeError, KeyError) as error:
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
