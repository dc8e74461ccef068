"""State dicts of other code: checked, and loaded strictly into our networks by a table of their layer names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.errors import CheckpointError
from hdgan.models.options import NormKind
from hdgan.models.spectral_norm import without_spectral_norm
from hdgan.weights import plain_names, require_finite
from hdgan.weights.modules import describe_differences, tensor_shapes

Shapes = Mapping[str, tuple[int, ...]]

BATCHES = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var", BATCHES)
_TENSORS = ("weight", "bias", *_STATISTICS)
"""The tensors of a layer, in PyTorch's order; a convolution has the first two."""


def tensors_of(state_dict: Any, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, by their names without the prefixes of DataParallel and torch.compile.

    Args:
        state_dict: what was read.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: it is not a state dict, or contains something other than dense tensors.
    """
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"{where} is a {type(state_dict).__name__}, not a state dict; save network.state_dict() instead"
        )
    for key, value in state_dict.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{where}: {key!r} is not the name of a tensor; save network.state_dict() instead")
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{where}: {key!r} is a {type(value).__name__}, not a tensor; save network.state_dict() on its own"
            )
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            raise CheckpointError(
                f"{where}: {key} is not a dense tensor with values; save the weights as dense tensors"
            )
    return plain_names(state_dict, where)


def norm_of(tensors: Mapping[str, Tensor]) -> tuple[NormKind, dict[str, Tensor]]:
    """The kind of norm, and the tensors without running statistics if those are of instance norms.

    Only batch norms have weights, which have one dimension; those of convolutions have four. Instance norms wrote
    running statistics before PyTorch 0.4, but never used them.
    """
    if any(key.endswith(".weight") and value.dim() == 1 for key, value in tensors.items()):
        return "batch", dict(tensors)
    return "instance", {key: value for key, value in tensors.items() if not key.endswith(_STATISTICS)}


def first_conv(shapes: Shapes, key: str, where: str, remedy: str) -> tuple[int, int]:
    """Output and input channels of a network's first convolution, whose weight is `key`.

    Raises:
        CheckpointError: there is no such convolution; the message starts with `where` and ends in `remedy`.
    """
    shape = shapes.get(key, ())
    if len(shape) != 4 or 0 in shape:
        found = f"has shape {shape}" if key in shapes else "is missing"
        raise CheckpointError(f"{where}: {key}, the first convolution, {found}; {remedy}")
    return shape[0], shape[1]


def out_channels(shapes: Shapes, layer: str) -> int:
    """Output channels of a network's last convolution; 1 if it is missing, which loading then reports."""
    return (shapes.get(f"{layer}.bias") or (1,))[0]


def numbers(pattern: str, keys: Iterable[str]) -> set[int]:
    """The different numbers that `pattern` captures at the start of the keys, of nine digits at most."""
    return {int(match[1]) for match in (re.match(pattern, key) for key in keys) if match and len(match[1]) < 10}


def keys_of(network: nn.Module, layers: Mapping[str, str]) -> dict[str, str]:
    """Their key and ours for each tensor of a network, in the order of `layers`: their name and ours for each layer."""
    pairs = ((f"{theirs}.{name}", f"{ours}.{name}") for theirs, ours in layers.items() for name in _TENSORS)
    state = network.state_dict()
    return {theirs: ours for theirs, ours in pairs if ours in state}


def renamed_state(network: nn.Module, layers: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a network, not copied, by their keys in the other code.

    Spectral norms are left out: a convolution has the weight that they make of it.
    """
    network = without_spectral_norm(network)
    state = network.state_dict()
    return {theirs: state[ours] for theirs, ours in keys_of(network, layers).items()}


def load_strictly(
    network: nn.Module, layers: Mapping[str, str], tensors: Mapping[str, Tensor], where: str, what: str, remedy: str
) -> None:
    """Give a network on the device "meta" the tensors of a state dict, which must be exactly those that it needs.

    In messages `where` is the file, `what` the network, and `remedy` what to do about other tensors.

    Raises:
        CheckpointError: tensors are missing, unknown, with another shape, not floating-point, or not finite.
    """
    weights = {key: value for key, value in tensors.items() if not key.endswith(BATCHES)}
    for key, value in weights.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{where}: {key} is {value.dtype}, not floating point; use the unquantised checkpoint"
            )
    require_finite(weights, where)
    state, keys = network.state_dict(), keys_of(network, layers)
    expected = tensor_shapes({theirs: state[ours] for theirs, ours in keys.items()})
    differences = describe_differences(expected, tensor_shapes(tensors))
    if differences:
        raise CheckpointError(f"{where}: its tensors do not fit any {what} ({differences}); {remedy}")
    network.to_empty(device=next(iter(tensors.values())).device)
    network.load_state_dict({ours: tensors[theirs] for theirs, ours in keys.items()})
