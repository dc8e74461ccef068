"""The graph of a forward, with everything that it took for granted.

torch.fx runs a forward once, on stand-ins for its tensors, and writes down the operations. Python values are not
written down: what depends on `self.training`, on a flag, a global or an argument is as it was in that one run. Whatever
was read is therefore noted (`reads.py`), and an accelerated forward compares it before each call. What cannot be noted
makes a module untraceable: it is called as a whole, and its parts are traced on their own. So does a second run that
gives another graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from hdgan.acceleration.program import is_accelerated
from hdgan.acceleration.reads import GlobalRead, Method, Read, Reads, Shared, why_left
from hdgan.acceleration.sandbox import preserved
from hdgan.acceleration.watching import TraceWatch, Untraceable
from hdgan.ops._torch_internals import names_in
from hdgan.wording import first_line

IN_PLACE_OPERATORS = (
    *("iadd", "iand", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift", "isub"),
    *("itruediv", "ixor"),
)
"""Names in the module operator, of what `+=` and the like call."""
_FACTORIES = ("empty", "ones", "rand", "randn", "zeros")
"""Functions of torch that take a size as a tuple or as several numbers."""
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList, nn.ParameterDict)


@dataclass
class Trace:
    """A graph of a module's forward."""

    graph: fx.Graph
    reads: tuple[Read, ...]
    called: dict[nn.Module, None]
    """The modules that it calls, in order."""
    inlined: dict[nn.Module, None]
    """The modules of which it contains what they do."""


def trace(root: nn.Module, call: Callable[..., Any], inputs: int, leaves: Set[nn.Module]) -> Trace:
    """The graph of `call(root, *tensors)`, where call runs the forward of the root.

    Args:
        root: the module.
        call: takes the module and the tensors.
        inputs: number of the tensors.
        leaves: modules that are called in any case.

    Raises:
        Untraceable: the forward of the root itself has no graph.
    """
    called = set(leaves)
    while True:  # once more for each module that turns out to be untraceable
        tracer = _Tracer(root, called)
        reasons = tracer.watch.reasons
        try:
            made = tracer.run(call, inputs)
        except Exception as error:
            if tracer.failed is None:
                raise Untraceable(reasons.get(root) or _reason(error)) from error
            called.add(tracer.failed)
            continue
        if root in reasons:
            raise Untraceable(reasons[root])
        if not reasons:
            if not _is_repeatable(made, _Tracer(root, called).run(call, inputs), root):
                raise Untraceable("is another one each time it runs")
            return made
        called.update(reasons)


def _is_repeatable(made: Trace, again: Trace, root: nn.Module) -> bool:
    same = made.graph.python_code("self").src == again.graph.python_code("self").src
    return same and all(reads.hold(root) for reads in made.reads)


def _reason(error: Exception) -> str:
    if isinstance(error, Untraceable):
        return str(error)
    if isinstance(error, fx.proxy.TraceError):
        return "depends on the values or the shape of a tensor"
    return f"cannot be traced ({type(error).__name__}: {first_line(error)[:100]})"


class _Tracer(fx.Tracer):
    traced_func_name = "_call_with_tensors"

    def __init__(self, root: nn.Module, leaves: set[nn.Module]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.watch = TraceWatch(root)
        self.failed: nn.Module | None = None
        """The innermost module in which an error was raised, if it is not the root."""
        self._leaves = leaves
        self._called: dict[nn.Module, None] = {}
        self._inlined: dict[nn.Module, None] = {}

    def run(self, call: Callable[..., Any], inputs: int) -> Trace:
        """The graph, whether exact or not."""
        root = self.watch.root
        names = [f"tensor_{i}" for i in range(inputs)]
        space: dict[str, Any] = {"call": call}
        exec(f"def traced({', '.join(['self', *names])}): return call({', '.join(['self', *names])})", space)
        with preserved(root), _sizes_as_tuples(), self.watch.on():
            setattr(type(root), self.traced_func_name, space["traced"])
            graph = self.trace(root)
        found = [GlobalRead(module, names, value) for (module, names), value in self.watch.globals.items()]
        return Trace(graph, (*self._reads(), *self._methods(), *self._shared(), *found), self._called, self._inlined)

    def _reads(self) -> Iterator[Reads]:
        root = self.watch.root
        paths = {module: tuple(path.split(".")) if path else () for path, module in root.named_modules()}
        used = self._inlined | self._called
        open_paths = {(), *(paths[module] for module in self._inlined)}
        above = {paths[module][:depth] for module in used for depth in range(len(paths[module]))}
        for module, path in paths.items():
            inlined, values = module in self._inlined, tuple(self.watch.values.get(module, {}).items())
            grows = isinstance(module, _CONTAINERS) and path[:-1] in open_paths  # a loop sees what is added
            if grows:
                open_paths.add(path)
            leads = inlined or grows or path in above or module is root
            methods = tuple(name for name in self.watch.methods.get(module, ()) if name != "forward")  # see `inlined`
            if leads or values or methods:
                kind = self.watch.kinds[module] if leads and module is not root else None
                yield Reads(path, kind, names_in(module) if leads else None, inlined, values, methods)

    def _methods(self) -> Iterator[Method]:
        kinds = self.watch.kinds
        found = [(kinds[module], name) for module, names in self.watch.methods.items() for name in names]
        found += [(kinds[module], "forward") for module in self._called]
        for kind, name in dict.fromkeys(found):
            if isinstance(getattr(kind, name, None), FunctionType) and not is_accelerated(kind):
                yield Method(kind, name)

    def _shared(self) -> Iterator[Shared]:
        root = self.watch.root
        paths: dict[Any, list[tuple[str, ...]]] = {}
        for named in (root.named_modules, root.named_parameters, root.named_buffers):
            for path, held in named(remove_duplicate=False):
                paths.setdefault(held, []).append(tuple(path.split(".")))
        for held, several in paths.items():
            unused = isinstance(held, nn.Module) and held not in self._called and held not in self._inlined
            if len(several) > 1 and not unused:
                yield Shared(tuple(several))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m in self._leaves or why_left(m) is not None or isinstance(m, torch.jit.ScriptModule):
            return True
        return m.__module__.startswith("torch.") and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not self.watch.kinds[m].__module__.startswith("torch.") and type(m).__call__ is not nn.Module.__call__:
            self.watch.refuse(f"calls a {self.watch.kinds[m].__name__}, which is called in a way of its own")
        if self.is_leaf_module(m, ""):
            self._called[m] = None
            return super().call_module(m, forward, args, kwargs)
        self._inlined[m] = None
        self.watch.running.append(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = m if self.failed is None else self.failed
            raise
        finally:
            self.watch.running.pop()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _InPlaceProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter):
            raise Untraceable("makes or holds a tensor that is neither a parameter nor a buffer")
        if (
            isinstance(a, list | dict)
            and type(a) not in (list, dict)
            and not type(a).__module__.startswith("torch.fx.")
        ):
            raise Untraceable(f"makes a value of the type {type(a).__name__}")
        return a.item() if isinstance(a, np.generic) else super().create_arg(a)


@contextmanager
def _sizes_as_tuples() -> Iterator[None]:
    """Let torch.zeros(b, c, h, w) be called with stand-ins for its numbers, which it only takes as a tuple."""
    originals = {name: getattr(torch, name) for name in _FACTORIES}

    def taking_tuple(original: Callable[..., Any]) -> Callable[..., Any]:
        def made(*size: Any, **options: Any) -> Any:
            several = len(size) > 1 and any(isinstance(side, fx.Proxy) for side in size)
            return original(size, **options) if several else original(*size, **options)

        made.__module__ = torch.__name__  # whose functions are not compared later
        return made

    try:
        for name, original in originals.items():
            setattr(torch, name, taking_tuple(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)


class _InPlaceProxy(fx.Proxy):
    """A stand-in for a tensor whose `x += y` changes it; torch.fx would write down `x = x + y`."""


def _in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _name in IN_PLACE_OPERATORS:
    setattr(_InPlaceProxy, f"__{_name}__", _in_place(_name))
