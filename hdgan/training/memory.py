"""What a forward pass keeps in memory for its backward pass, which is most of what training needs.

PyTorch's hooks count it, so it works on any device. The allocator's rounding and the memory of libraries are not
included.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class LayerMemory:
    """What one layer keeps for the backward pass."""

    layer: str
    """Name of the layer as in `named_modules`; empty outside of all modules."""
    bytes: int
    """Size of the storages that no earlier layer keeps."""
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of the tensors in these storages."""


class _Kept:
    """A tensor that a graph keeps alive."""

    __slots__ = ("__weakref__", "layer", "tensor")

    def __init__(self, tensor: Tensor, layer: str) -> None:
        self.tensor, self.layer = tensor, layer


def saved_bytes(function: Callable[[], Any], exclude: Iterable[Tensor] = ()) -> int:
    """Count the bytes that `function` leaves in memory for the backward pass of its results.

    Each storage counts once and whole, however many tensors view it; what is freed before `function` returns does not
    count.

    Args:
        function: runs a forward pass and returns what holds its graph, for example a loss.
        exclude: tensors that are in memory anyway: parameters and inputs.
    """
    return sum(layer.bytes for layer in saved_by_layer(function, exclude=exclude))


def saved_by_layer(
    function: Callable[[], Any], *models: nn.Module, exclude: Iterable[Tensor] = ()
) -> list[LayerMemory]:
    """The same as `saved_bytes` for each layer of `models`, in the order of the pass; their parameters are excluded.

    Calls of one layer count together. A storage that two layers share belongs to the first.
    """
    in_memory = [*exclude, *(t for model in models for t in (*model.parameters(), *model.buffers()))]
    seen = {tensor.untyped_storage() for tensor in in_memory}
    kept: list[weakref.ref[_Kept]] = []  # in the order of the pass
    inside = [""]

    def pack(tensor: Tensor) -> _Kept:
        entry = _Kept(tensor.detach(), inside[-1])  # an output, as it is, would hold the graph that holds it
        kept.append(weakref.ref(entry))
        return entry

    with _tracked(models, inside), saved_tensors_hooks(pack, lambda entry: entry.tensor):
        result = function()
    layers: dict[str, list[Tensor]] = {}
    for entry in (reference() for reference in kept):
        if entry is not None and entry.tensor.untyped_storage() not in seen:
            seen.add(entry.tensor.untyped_storage())
            layers.setdefault(entry.layer, []).append(entry.tensor)
    del result  # until here it held the graph
    return [
        LayerMemory(name, sum(t.untyped_storage().nbytes() for t in tensors), tuple(tuple(t.shape) for t in tensors))
        for name, tensors in layers.items()
    ]


@contextmanager
def _tracked(models: Iterable[nn.Module], inside: list[str]) -> Iterator[None]:
    """Keep the name of the innermost module that runs at the end of `inside`.

    Hooks of the modules would change how they run (`hdgan.models.blocks.is_plain`), so their call is replaced.
    """
    names = {module: name for model in models for name, module in model.named_modules()}
    call = nn.Module.__call__

    def tracked(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module not in names:
            return call(module, *args, **kwargs)
        inside.append(names[module])
        try:
            return call(module, *args, **kwargs)
        finally:
            inside.pop()

    nn.Module.__call__ = tracked  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]
