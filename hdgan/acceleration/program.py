"""A class whose forward runs a rewritten graph, for a module that exists already.

The module stays itself: the same object with the same parts, of a class derived from its own. What knows it, such as an
optimizer, an average of its weights or a hook, need not be told. Copies and pickles stay accelerated.
"""

from __future__ import annotations

import copyreg
import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from hdgan.acceleration.reads import Read, same

_PROGRAM = "_hdgan_program"


def is_integer(x: Tensor) -> bool:
    """Whether a tensor holds integers."""
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


class Slot(Enum):
    """Stands for an argument that is a tensor."""

    TENSOR = "any tensor"
    IDS = "a tensor of integers"

    def takes(self, given: Any) -> bool:
        """Whether an argument is one."""
        return isinstance(given, Tensor) and (self is Slot.TENSOR or is_integer(given))


TENSOR, IDS = Slot.TENSOR, Slot.IDS


@dataclass(eq=False)
class Version:
    """One graph of a forward, and when it is what the forward does."""

    source: str
    """The code of a function `forward` that takes the module and the tensors."""
    names: dict[str, Any]
    """What this code refers to."""
    arguments: tuple[Any, ...]
    """The arguments of the original forward that it is for: TENSOR, or a value."""
    reads: tuple[Read, ...]
    run: Callable[..., Any] = field(init=False)
    """The function of the code."""

    def __post_init__(self) -> None:
        space = dict(self.names)
        file = f"<hdgan.accelerate {id(self)}>"
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(True), file)  # for tracebacks
        exec(compile(self.source, file, "exec"), space)
        self.run = space["forward"]

    @classmethod
    def of(cls, graph: fx.Graph, arguments: tuple[Any, ...], reads: tuple[Read, ...]) -> Version:
        """The version that a graph is."""
        code = graph.python_code("self")
        return cls(code.src, dict(code.globals), arguments, reads)

    def is_for(self, module: nn.Module, arguments: tuple[Any, ...]) -> bool:
        """Whether it is what the forward of a module would do with these arguments."""
        for given, expected in zip(arguments, self.arguments, strict=True):
            if isinstance(expected, Slot):
                if not expected.takes(given):
                    return False
            elif not same(given, expected):
                return False
        return all(reads.hold(module) for reads in self.reads)

    def tensors(self, arguments: tuple[Any, ...]) -> list[Tensor]:
        """The arguments that its code takes."""
        return [given for given, expected in zip(arguments, self.arguments, strict=True) if isinstance(expected, Slot)]

    def __getstate__(self) -> dict[str, Any]:
        names = {name: _Module(v.__name__) if isinstance(v, ModuleType) else v for name, v in self.names.items()}
        return {"source": self.source, "names": names, "arguments": self.arguments, "reads": self.reads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        loaded = {
            name: importlib.import_module(v.name) if isinstance(v, _Module) else v for name, v in state["names"].items()
        }
        self.__dict__.update(state, names=loaded)
        self.__post_init__()


@dataclass(frozen=True)
class _Module:
    """A Python module in a pickle."""

    name: str


@dataclass(frozen=True, eq=False)
class Program:
    """The accelerated forward of a module.

    A call that no version is for runs the original forward.
    """

    original: type[nn.Module]
    """The class of the module."""
    versions: tuple[Version, ...]

    @cached_property
    def kind(self) -> type[nn.Module]:
        """The class with this forward. Its name is that of the original class."""
        original = self.original
        names = {
            "forward": _forward(original, self.versions),
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": original.__doc__,
            "__reduce_ex__": _reduce,
            _PROGRAM: self,
        }
        return type(original.__name__, (original,), names)

    def __deepcopy__(self, memo: Any) -> Program:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"original": self.original, "versions": self.versions}


def program_of(module: nn.Module) -> Program | None:
    """The program of an accelerated module; None for any other."""
    found = type(module).__dict__.get(_PROGRAM)
    return found if isinstance(found, Program) else None


def is_accelerated(kind: type[nn.Module]) -> bool:
    """Whether a class is that of an accelerated module, whose program looks after its methods."""
    return _PROGRAM in vars(kind)


def install(module: nn.Module, program: Program) -> None:
    """Accelerate a module."""
    module.__class__ = program.kind


def uninstall(module: nn.Module) -> Program | None:
    """Give a module its own class back; the program that it had, if any."""
    program = program_of(module)
    if program is not None:
        module.__class__ = program.original
    return program


def parameters_of(kind: type[nn.Module]) -> list[inspect.Parameter]:
    """What the forward of a class takes, without the module."""
    if sys.version_info >= (3, 14):  # evaluates annotations late, and they may name what only type checkers import
        from annotationlib import Format

        signature = inspect.signature(kind.forward, annotation_format=Format.FORWARDREF)
    else:
        signature = inspect.signature(kind.forward)
    return list(signature.parameters.values())[1:]


def _forward(original: type[nn.Module], versions: tuple[Version, ...]) -> Callable[..., Any]:
    """A forward with the arguments of the original one, which takes a version if there is one."""
    parameters = parameters_of(original)
    names = [parameter.name for parameter in parameters]
    passed = [f"{n}={n}" if p.kind is p.KEYWORD_ONLY else n for n, p in zip(names, parameters, strict=True)]
    self_name = "self" if "self" not in names else "_self"
    signature = inspect.Signature(
        [inspect.Parameter(self_name, inspect.Parameter.POSITIONAL_ONLY)]
        + [p.replace(annotation=p.empty, default=p.empty) for p in parameters]
    )
    given = "".join(f"{name}, " for name in names)
    source = (
        f"def forward{_without_slash(str(signature))}:\n"
        f"    for _hdgan_version in _hdgan_versions:\n"
        f"        if _hdgan_version.is_for({self_name}, ({given})):\n"
        f"            return _hdgan_version.run({self_name}, *_hdgan_version.tensors(({given})))\n"
        f"    return _hdgan_original.forward({', '.join([self_name, *passed])})\n"
    )
    space: dict[str, Any] = {"_hdgan_versions": versions, "_hdgan_original": original}
    exec(source, space)
    forward = space["forward"]
    given_defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    keyword_only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    forward.__defaults__ = tuple(value for name, value in given_defaults.items() if name not in keyword_only)
    forward.__kwdefaults__ = {name: value for name, value in given_defaults.items() if name in keyword_only}
    forward.__doc__ = original.forward.__doc__
    return forward


def _without_slash(signature: str) -> str:
    return signature.replace("/, ", "").replace(", /", "")


def _reduce(self: nn.Module, protocol: Any) -> Any:
    program = program_of(self)
    assert program is not None
    made: Any = program.original.__reduce_ex__(self, max(int(protocol), 2))
    if made[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
        return made
    return _restored, (program, *made[1][1:]), *made[2:]


def _restored(program: Program, *arguments: Any) -> nn.Module:
    module = program.kind.__new__(program.kind, *arguments)
    assert isinstance(module, nn.Module)
    return module
