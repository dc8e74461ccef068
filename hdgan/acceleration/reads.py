"""What a graph takes for granted, and whether it is still so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FunctionType
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
    methods: tuple[str, ...] = ()
    """Methods of its class that the graph contains, which may not be replaced by attributes of its own."""

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
        if self.methods and any(name in module.__dict__ for name in self.methods):
            return False
        for names, expected in self.values:
            value: Any = module
            for name in names:
                value = getattr(value, name, _MISSING)
            if not same(value, expected):
                return False
        return True


@dataclass(frozen=True)
class Method:
    """A method as a class has it, by itself or by its bases. A pickle of it means the method as it is where it is read.

    Args:
        kind: the class.
        name: the method.
    """

    kind: type[nn.Module]
    name: str

    def __post_init__(self) -> None:
        places = (self.kind, *(base for base in self.kind.__mro__[1:] if self.name in vars(base)))
        object.__setattr__(self, "_functions", [(place, getattr(place, self.name)) for place in places])

    def hold(self, _: nn.Module) -> bool:
        """Whether it is still the same function."""
        functions: list[tuple[type, Any]] = self.__dict__["_functions"]
        return all(getattr(place, self.name, None) is function for place, function in functions)

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


@dataclass(frozen=True)
class GlobalRead:
    """A global variable that was read, and its value. A pickle of a function means what it is where it is read."""

    module: str
    """The Python module that it belongs to."""
    names: tuple[str, ...]
    """The names that lead to it from there."""
    expected: Any

    def hold(self, _: nn.Module) -> bool:
        """Whether it is still so."""
        return same(self._now(), self.expected)

    def _now(self) -> Any:
        value: Any = sys.modules.get(self.module)
        for name in self.names:
            value = getattr(value, name, _MISSING)
        return value

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        return {name: held for name, held in state.items() if not isinstance(held, FunctionType)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "expected" not in state:
            self.__dict__["expected"] = self._now()


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


Read = Reads | Method | GlobalRead | Shared
"""Something that a graph takes for granted."""


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
