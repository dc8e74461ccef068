"""What a graph takes for granted, and whether it is still so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import nn

from hdgan.ops._torch_internals import has_hooks, is_compiled, names_in, parts_of

_MISSING = object()


@dataclass(frozen=True)
class Reads:
    """What a graph takes for granted of one module."""

    path: tuple[str, ...]
    """The names that lead to it from the traced module."""
    kind: type[nn.Module] | None
    """Its class, where that matters: the graph contains what it does, or finds others by it."""
    parts: tuple[str, ...] | None
    """The names of its parts, parameters and buffers, where the graph finds others by it."""
    inlined: bool
    """Whether the graph contains what its forward does. It may then have no hooks, and no forward of its own."""
    values: tuple[tuple[tuple[str, ...], Any], ...] = ()
    """Attributes that were read, each as the names that lead to it, and their values."""

    def is_of_mode(self) -> bool:
        """Whether the mode was read."""
        return any(names == ("training",) for names, _ in self.values)

    def hold(self, root: nn.Module) -> bool:
        """Whether all of it is still so."""
        module = root
        for name in self.path:
            part = parts_of(module).get(name)
            if part is None:
                return False
            module = part
        if self.kind is not None and type(module) is not self.kind:
            return False
        if self.inlined and why_left(module) is not None:
            return False
        if self.parts is not None and names_in(module) != self.parts:
            return False
        for names, expected in self.values:
            value: Any = module
            for name in names:
                value = getattr(value, name, _MISSING)
            if not same(value, expected):
                return False
        return True


@dataclass(frozen=True)
class GlobalRead:
    """A global variable that was read, and its value."""

    module: str
    """The Python module that it belongs to."""
    names: tuple[str, ...]
    """The names that lead to it from there."""
    expected: Any

    def hold(self, _: nn.Module) -> bool:
        """Whether it is still so."""
        value: Any = sys.modules.get(self.module)
        for name in self.names:
            value = getattr(value, name, _MISSING)
        return same(value, self.expected)


@dataclass(frozen=True)
class Shared:
    """The names of one part, parameter or buffer that has several, of which the graph uses the first."""

    paths: tuple[tuple[str, ...], ...]

    def hold(self, root: nn.Module) -> bool:
        """Whether it is still one."""
        found = []
        for path in self.paths:
            value: Any = root
            for name in path:
                value = getattr(value, name, None)
            found.append(value)
        return all(value is found[0] for value in found)


def same(value: Any, expected: Any) -> bool:
    """Whether a value is what it was: equal and of the same type, or the same function."""
    return value is expected or (type(value) is type(expected) and not callable(expected) and bool(value == expected))


def why_left(module: nn.Module) -> str | None:
    """Why a module has to be called as it is: something may see that it is called."""
    if "forward" in module.__dict__:
        return "has a forward of its own"
    if is_compiled(module):
        return "is compiled"
    return "has hooks" if has_hooks(module) else None
