"""Tensors without pixels, on which a network runs as it is: each operation makes a node that computes regions.

`RegionTensor` takes part in PyTorch's protocol for other tensors, `__torch_function__`. What a network calls is looked
up among the functions of operations.py and norms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from hdgan.errors import ConfigError
from hdgan.ops._overrides import takes_ops
from hdgan.regions.nodes import Node
from hdgan.regions.run import RegionRun

Kind = TypeVar("Kind", bound="RegionTensor")
Function = TypeVar("Function", bound=Callable[..., Any])
_STANDINS: dict[Any, Callable[..., Any]] = {}
"""For a function of PyTorch or hdgan, the one that makes a node of it."""


def stands_for(*functions: Any) -> Callable[[Function], Function]:
    """Decorate the function that takes the place of others where a `RegionTensor` is among their arguments."""

    def register(function: Function) -> Function:
        _STANDINS.update(dict.fromkeys(functions, function))
        return function

    return register


def stand_in_for(function: Any) -> Callable[..., Any] | None:
    """The function that takes the place of another one; None if nothing does."""
    return _STANDINS.get(function)


@takes_ops
class RegionTensor(Tensor):
    """An image [B, C, H, W], or a map [B, H, W], whose pixels are computed region by region.

    Attributes:
        node: computes them.
        run: how.
    """

    node: Node
    run: RegionRun

    @classmethod
    def of(cls: type[Kind], node: Node, run: RegionRun) -> Kind:
        """The tensor of a node."""
        bare = torch.empty(node.shape, dtype=node.dtype, device="meta")
        tensor = bare.as_subclass(cls)
        tensor.node, tensor.run = node, run
        return tensor

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """That on which regions are computed."""
        return self.run.device

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (stand_in := stand_in_for(func)) is not None:
            return stand_in(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            raise unsupported(getattr(func, "__name__", str(func)))
        return result  # a size, a dtype or the like


def unsupported(what: str) -> ConfigError:
    """The error for what cannot be computed region by region."""
    return ConfigError(f"the network uses {what}, which cannot be computed in tiles: generate the whole image at once")


def made_from(x: RegionTensor, node: Node) -> RegionTensor:
    """The tensor of a node that is computed from another tensor's."""
    return RegionTensor.of(node, x.run)
