"""What a module must be for another one to take its place with the same parameters."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from hdgan.ops._torch_internals import has_own_hooks


def require_plain(caller: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Check that a module computes what its class in torch.nn does, and that nobody watches it.

    Parametrised modules (weight norm and spectral norm among them) are of classes of their own. Pruning and the older
    spectral norm use hooks.

    Raises:
        ValueError: it is of another class, not initialised yet, has a forward of its own, or has hooks.
    """
    name = type(module).__name__
    if isinstance(module, LazyModuleMixin):
        raise ValueError(f"{caller}: {name} does not know its number of channels yet; call its network once before")
    if type(module) is not kind:
        raise ValueError(f"{caller}: expected an nn.{kind.__name__}, got {name}, which may compute something else")
    if "forward" in vars(module):
        raise ValueError(f"{caller}: this {name} has a forward of its own, which would not run any more")
    if has_own_hooks(module):
        raise ValueError(f"{caller}: this {name} has hooks, which would not run any more; remove them first")
