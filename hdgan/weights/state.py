"""State dicts: their place in a file, their names without the prefixes of wrappers, and whether they are finite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from hdgan.errors import CheckpointError
from hdgan.weights.pickles import StoredTensor, Unknown

T = TypeVar("T")

_WRAPPERS = r"module|_orig_mod|_fsdp_wrapped_module"
"""The prefixes that DataParallel, FSDP and torch.compile add to names."""
_PREFIX = re.compile(rf"(?:(?:{_WRAPPERS})\.)+")
_INSIDE = re.compile(r"\.(?:_orig_mod|_fsdp_wrapped_module)(?=\.)")
_REPARAMETRIZED = re.compile(
    r"(?:^|\.)(?:parametrizations\.\w+\..+|(?:weight|bias)_(?:orig|mask|u|v|g)|lora_\w+(?:\..+)?)$"
)
"""Tensors that spectral norm, weight norm, other parametrizations, pruning and LoRA store instead of a weight."""
_DEEPEST, _MOST_TENSORS = 100, 100_000


def plain_names(state: Mapping[str, T], where: str) -> dict[str, T]:
    """The entries of a state dict by their names without the prefixes of DataParallel, torch.compile and FSDP.

    Args:
        state: entries by their names.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: two entries would have the same name, or a weight is stored in the parts of a
            reparametrization.
    """
    plain: dict[str, T] = {}
    for key, value in state.items():
        name = _INSIDE.sub("", _PREFIX.sub("", key, count=1) if _PREFIX.match(key) else key)
        if name in plain:
            raise CheckpointError(
                f"{where} contains {name} twice, with and without prefix; save network.state_dict() again"
            )
        if _REPARAMETRIZED.search(name):
            raise CheckpointError(
                f"{where}: {name} is part of a weight under spectral norm, another parametrization, pruning or LoRA; "
                "where it was made, fold it into the weight (torch.nn.utils.parametrize.remove_parametrizations, "
                "torch.nn.utils.remove_spectral_norm or the like) and save network.state_dict() again"
            )
        plain[name] = value
    return plain


def find_state(content: Any, where: str) -> Mapping[Any, Any]:
    """The state dict in a file: its content, an entry such as {"state_dict": …, "epoch": …}, or that of a whole module.

    Args:
        content: of the file, as `read_pickle` gives it.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: there is no state dict, or there are several.
    """
    found = dict(_states(content, "", 0))
    if len(found) > 1:
        names = ", ".join(list(found)[:4])
        raise CheckpointError(
            f"{where} contains several networks ({names}); save each on its own, as in "
            f'torch.save(checkpoint["{next(iter(found))}"], …)'
        )
    if found:
        return next(iter(found.values()))
    if isinstance(content, Unknown) or (
        isinstance(content, Mapping) and any(isinstance(value, Unknown) for value in content.values())
    ):
        raise CheckpointError(
            f"{where} contains Python objects, not just weights, and loading them could run any code; where it was "
            "made, write it again with torch.save(network.state_dict(), …)"
        )
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{where} is a {type(content).__name__}, not a state dict; save network.state_dict() instead")


def _states(content: Any, name: str, depth: int) -> list[tuple[str, Mapping[Any, Any]]]:
    """State dicts by the name of what contains them, which is at most two tables deep."""
    if isinstance(content, Unknown):
        tensors = _of_module(content)
        return [(name, tensors)] if tensors else []
    if not isinstance(content, Mapping) or depth > 2:
        return []
    if any(_is_tensor(value) for value in content.values()):
        return [(name, content)]
    inner = (_states(value, f"{key}", depth + 1) for key, value in content.items() if isinstance(key, str))
    return [state for states in inner for state in states]


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, also of a special kind, which a function of its own rebuilds."""
    return isinstance(value, StoredTensor) or (isinstance(value, Unknown) and "._rebuild_" in value.name)


def _of_module(module: Unknown) -> dict[str, StoredTensor]:
    """The state dict of a module that was pickled whole; empty for any other object.

    Raises:
        ValueError: there are too many modules, or one contains itself.
    """
    tensors: dict[str, StoredTensor] = {}
    open_modules = [("", module, 0)]
    for prefix, one, depth in open_modules:
        parts = one.state if isinstance(one.state, Mapping) else {}
        for kind in ("_parameters", "_buffers", "_modules"):
            table = parts.get(kind)
            for name, value in table.items() if isinstance(table, Mapping) else ():
                if isinstance(value, StoredTensor):
                    tensors[f"{prefix}{name}"] = value
                elif isinstance(value, Unknown) and kind == "_modules":
                    open_modules.append((f"{prefix}{name}.", value, depth + 1))
        if depth > _DEEPEST or len(tensors) + len(open_modules) > _MOST_TENSORS:
            raise ValueError("endless modules")
    return tensors


def is_finite(value: Tensor) -> bool:
    """Whether all numbers of a tensor are finite in float32, the type of the networks, in which 1e300 is not.

    Integers always are. The check takes one pass over the tensor and no memory of its size.
    """
    if not value.is_floating_point() or value.numel() == 0:
        return True
    if value.element_size() == 1:  # float8 has no minimum
        value = value.float()
    return bool(torch.stack(torch.aminmax(value)).float().isfinite().all())


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are not finite, since every result would be NaN.

    Args:
        tensors: by their names.
        where: what the error message starts with, usually the file.

    Raises:
        CheckpointError: a tensor holds NaN, an infinity, or a number beyond float32; the message names the first.
    """
    for key, value in tensors.items():
        if not is_finite(value):
            wrong = int((~value.float().isfinite()).sum())
            raise CheckpointError(
                f"{where}: {key} contains numbers that are NaN or infinite ({wrong} of {value.numel()}): training "
                "diverged, or the file is damaged; use another checkpoint"
            )
