"""The graph of a forward, with everything that it took for granted.

torch.fx runs a forward once, on stand-ins for its tensors, and writes down the operations. Python values are not
written down: what depends on `self.training`, on a flag or on an argument is as it was in that one run. Whatever was
read is therefore noted (`Reads`), and an accelerated forward compares it before each call. What cannot be noted makes
a module untraceable: it is called as a whole, and its parts are traced on their own.
"""

from __future__ import annotations

import copy
import dis
import operator
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from hdgan.ops._torch_internals import has_hooks

_MISSING = object()
_OWN = set(vars(nn.Module())) - {"training"}
"""What every module has. The modules among it are compared as a whole."""
_VALUES = (bool, int, float, complex, str, bytes, type(None), np.generic, Enum, torch.dtype, torch.device)
_REFUSED = {
    "isinstance": "asks for the type of a value",
    "type": "asks for the type of a value",
    "no_grad": "switches gradients off",
    "inference_mode": "switches gradients off",
    "set_grad_enabled": "switches gradients on or off",
    "is_grad_enabled": "asks whether there are gradients",
    "autocast": "switches autocast",
    "is_autocast_enabled": "asks for autocast",
    "checkpoint": "checkpoints a part of itself",
    "checkpoint_sequential": "checkpoints a part of itself",
    "is_scripting": "asks whether it is scripted",
    "is_tracing": "asks whether it is traced",
    "is_compiling": "asks whether it is compiled",
    "random": "draws numbers outside of PyTorch",
    "environ": "reads the environment",
    "open": "reads a file",
}
"""Names in a function whose effect a graph does not have."""
_WRITES = {"STORE_ATTR": "sets an attribute", "STORE_GLOBAL": "sets a global", "DELETE_ATTR": "deletes an attribute"}
_BLOCKS = ("SETUP_FINALLY", "SETUP_WITH", "BEFORE_WITH", "PUSH_EXC_INFO")
_LIBRARIES = {"torch", "numpy", *sys.stdlib_module_names}


IN_PLACE_OPERATORS = (
    *("iadd", "iand", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift", "isub"),
    *("itruediv", "ixor"),
)
"""Names in the module operator, of what `+=` and the like call."""


class Untraceable(Exception):
    """Why a module is not traced, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Reads:
    """What a graph takes for granted of one module that it contains."""

    path: tuple[str, ...]
    """From the traced module."""
    kind: type[nn.Module] | None
    """Its class, if the graph contains what its forward does. It may then have no hooks either."""
    children: tuple[str, ...] | None
    """The names of its parts, if the graph contains or calls any of them."""
    values: tuple[tuple[tuple[str, ...], Any], ...]
    """Attributes that were read, each as the names that lead to it, and their values."""

    def hold(self, root: nn.Module) -> bool:
        """Whether all of it is still so."""
        module = root
        for name in self.path:
            part = module._modules.get(name)
            if part is None:
                return False
            module = part
        if self.kind is not None and (type(module) is not self.kind or why_left(module) is not None):
            return False
        if self.children is not None and tuple(module._modules) != self.children:
            return False
        for names, expected in self.values:
            value: Any = module
            for name in names:
                value = getattr(value, name, _MISSING)
            if not same(value, expected):
                return False
        return True


def same(value: Any, expected: Any) -> bool:
    """Whether a value is what it was: equal and of the same type, or the same function."""
    return value is expected or (type(value) is type(expected) and not callable(expected) and bool(value == expected))


@dataclass
class Trace:
    """A graph of a module's forward."""

    graph: fx.Graph
    reads: tuple[Reads, ...]
    leaves: dict[nn.Module, str]
    """The modules, other than PyTorch's own, that the graph calls as a whole; and why."""
    used: set[nn.Module]
    """All modules that the graph contains or calls."""


def trace(root: nn.Module, call: Callable[..., Any], inputs: list[str], left: Mapping[nn.Module, str]) -> Trace:
    """The graph of `call(root, *tensors)`, where call runs the forward of the root.

    Args:
        root: the module.
        call: takes the module and a tensor for each input.
        inputs: names of the tensors.
        left: modules that are called as a whole in any case, and why.

    Raises:
        Untraceable: the forward of the root itself has no graph.
    """
    leaves = dict(left)
    while True:
        tracer = _Tracer(leaves)
        try:
            graph, reads = tracer.run(root, call, inputs)
        except Exception as error:
            if tracer.failed is None or tracer.failed is root:
                raise Untraceable(tracer.reasons.get(root) or _reason(error)) from error
            leaves[tracer.failed] = tracer.reasons.get(tracer.failed) or _reason(error)
            continue
        if root in tracer.reasons:
            raise Untraceable(tracer.reasons[root])
        if not tracer.reasons and not all(one.hold(root) for one in reads):
            raise Untraceable("reads something that is another one each time")
        if not tracer.reasons:
            called = {module: leaves.get(module, "is called as it is") for module in tracer.called}
            return Trace(graph, reads, called, tracer.called | tracer.inlined)
        leaves |= tracer.reasons


def _reason(error: Exception) -> str:
    if isinstance(error, Untraceable):
        return str(error)
    if isinstance(error, torch.fx.proxy.TraceError):
        return "depends on the values or the shape of a tensor"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"cannot be traced ({type(error).__name__}: {first[:100]})"


def why_left(module: nn.Module) -> str | None:
    """Why a module has to be called as it is: something may see that it is called."""
    if "forward" in module.__dict__:
        return "has a forward of its own"
    return "has hooks" if has_hooks(module) else None


class _Tracer(fx.Tracer):
    traced_func_name = "_call_with_tensors"

    def __init__(self, leaves: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.leaves = leaves
        self.called: set[nn.Module] = set()
        """Modules that are called as a whole."""
        self.reasons: dict[nn.Module, str] = {}
        """Modules of which a graph would not be exact, and why."""
        self.failed: nn.Module | None = None
        """The innermost module in which an error was raised."""
        self._running: list[nn.Module] = []
        self.inlined: set[nn.Module] = set()
        self._read: dict[nn.Module, dict[tuple[str, ...], Any]] = {}
        self._seen: dict[CodeType, str | None] = {}

    def run(self, root: nn.Module, call: Callable[..., Any], inputs: list[str]) -> tuple[fx.Graph, tuple[Reads, ...]]:
        names = ", ".join(inputs)
        space: dict[str, Any] = {"call": call}
        exec(f"def traced(self{', ' if inputs else ''}{names}): return call(self, {names})", space)
        paths = {module: tuple(path.split(".")) if path else () for path, module in root.named_modules()}
        kinds = {module: type(module) for module in paths}
        self._running.append(root)
        with self._watching(kinds, space["traced"], root), self._profiling():
            graph = self.trace(root)
        return graph, tuple(self._reads(root, paths, kinds))

    def _reads(
        self, root: nn.Module, paths: Mapping[nn.Module, tuple[str, ...]], kinds: Mapping[nn.Module, type]
    ) -> Iterator[Reads]:
        used = self.inlined | self.called
        above = {paths[module][:depth] for module in used for depth in range(len(paths[module]))}
        for module, path in paths.items():
            kind = kinds[module] if module in self.inlined else None
            children = tuple(module._modules) if kind is not None or path in above or module is root else None
            values = tuple(self._read.get(module, {}).items())
            if children is not None or values:
                yield Reads(path, kind, children, values)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m not in self.leaves and why_left(m) is None and not isinstance(m, torch.jit.ScriptModule):
            return super().is_leaf_module(m, module_qualified_name)
        return True

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.is_leaf_module(m, ""):
            self.called.add(m)
            return super().call_module(m, forward, args, kwargs)
        self._running.append(m)
        self.inlined.add(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = m if self.failed is None else self.failed
            raise
        finally:
            self._running.pop()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _InPlaceProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter):
            raise Untraceable("makes or holds a tensor that is neither a parameter nor a buffer")
        if isinstance(a, np.generic):
            return a.item()
        return super().create_arg(a)

    def note(self, module: nn.Module, names: tuple[str, ...], value: Any) -> Any:
        """Note that an attribute was read, and return what the forward gets to see of it."""
        if _is_value(value) or (isinstance(value, tuple) and all(map(_is_value, value))) or callable(value):
            self._read.setdefault(module, {})[names] = value
        elif hasattr(value, "__dict__") and not isinstance(value, Tensor | ModuleType):
            return _Watched(self, module, names, value)
        elif not isinstance(value, ModuleType):
            self._refuse(f"reads {'.'.join(names)}, a {type(value).__name__} that may change")
            return copy.copy(value)
        return value

    @contextmanager
    def _watching(self, kinds: Mapping[nn.Module, type], traced: Callable[..., Any], root: nn.Module) -> Iterator[None]:
        """Let all modules tell what is read of them, by a class between them and their own."""
        classes: dict[type, type] = {}
        try:
            for module, kind in kinds.items():
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                if kind not in classes:
                    classes[kind] = _watched_class(self, kind)
                module.__class__ = classes[kind]
            setattr(type(root), self.traced_func_name, traced)
            yield
        finally:
            for module, kind in kinds.items():
                if type(module) is not kind:
                    module.__class__ = kind

    @contextmanager
    def _profiling(self) -> Iterator[None]:
        """Look at every function of the user's that runs."""
        before = sys.getprofile()
        sys.setprofile(self._on_call)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _on_call(self, frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            owner = getattr(argument, "__self__", None)
            if isinstance(owner, random.Random):
                self._refuse(_REFUSED["random"])
            elif getattr(argument, "__module__", None) == "time":
                self._refuse("reads the clock")
        elif event == "call":
            code = frame.f_code
            if code not in self._seen:
                module = str(frame.f_globals.get("__name__", ""))
                ours = module.startswith("hdgan.acceleration")
                self._seen[code] = None if ours or module.split(".")[0] in _LIBRARIES else _objection(code)
            if reason := self._seen[code]:
                self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        self.reasons.setdefault(self._running[-1], reason)


def _is_value(value: Any) -> bool:
    return isinstance(value, _VALUES)


def _objection(code: CodeType) -> str | None:
    """What a function does that a graph does not show."""
    for step in dis.get_instructions(code):
        if step.opname in _WRITES:
            return f"{_WRITES[step.opname]} ({step.argval})"
        if step.opname in _BLOCKS:
            return "has a with or try block"
        loads_name = step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")
        loads_attribute = step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval != "type"
        if (loads_name or loads_attribute) and step.argval in _REFUSED:
            return _REFUSED[step.argval]
    return None


def _watched_class(tracer: _Tracer, kind: type) -> type:
    """A subclass whose instances tell the tracer which of their attributes are read."""

    original: Any = kind.__getattribute__

    def read(self: Any, name: str) -> Any:
        value = original(self, name)
        held = name in object.__getattribute__(self, "__dict__") or _is_value(value)  # or by its class
        return tracer.note(self, (name,), value) if held and name not in _OWN else value

    return type(kind.__name__, (kind,), {"__getattribute__": read, "__module__": kind.__module__})


class _InPlaceProxy(fx.Proxy):
    """A stand-in for a tensor whose `x += y` changes it; torch.fx would write down `x = x + y`."""


def _in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _name in IN_PLACE_OPERATORS:
    setattr(_InPlaceProxy, f"__{_name}__", _in_place(_name))


class _Watched:
    """An object of options that a module holds; what is read of it is noted."""

    def __init__(self, tracer: _Tracer, module: nn.Module, names: tuple[str, ...], value: Any) -> None:
        self.__dict__["_value"] = value
        self.__dict__["_read"] = lambda name: tracer.note(module, (*names, name), getattr(value, name))

    def __getattr__(self, name: str) -> Any:
        return self._read(name)

    def _as_a_whole(self, *_: Any) -> Any:
        raise Untraceable(f"uses an object as a whole that may change ({type(self._value).__name__})")

    __eq__ = __ne__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __hash__ = _as_a_whole
