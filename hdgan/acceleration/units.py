"""The modules of a tree whose forward is replaced.

The root is tried first. What of it has no graph is called as a whole, and tried on its own. So one module that cannot
be traced does not lose the rest.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from hdgan.acceleration import calls
from hdgan.acceleration.patterns import Rewriter
from hdgan.acceleration.pooling import find_pooling
from hdgan.acceleration.program import TENSOR, Program, Version, parameters_of, program_of
from hdgan.acceleration.reads import Method, Reads
from hdgan.acceleration.report import Found
from hdgan.acceleration.tracing import Trace, trace
from hdgan.acceleration.watching import Untraceable
from hdgan.nn.instance_norm_act import keeps_statistics

_SHARDED = "is sharded by FSDP", "accelerate the network before it is sharded"
_WRAPPERS = {
    "DistributedDataParallel": (
        "is wrapped in DistributedDataParallel",
        "accelerate the network before it is wrapped",
    ),
    "FullyShardedDataParallel": _SHARDED,
    "FSDPModule": _SHARDED,
    "OptimizedModule": ("is compiled already", "accelerate the network first and compile it then"),
    "ScriptModule": ("is a TorchScript module", "accelerate the network that it was made of"),
    "GraphModule": ("is a torch.fx.GraphModule", "accelerate the network that it was made of"),
}
"""Classes that are left alone with all of their parts: why, and what to do instead."""
Given = Mapping[nn.Module, tuple[tuple[Any, ...], Mapping[str, Any]]]
"""The arguments with which each module was first called."""


def wrapper_of(module: nn.Module) -> tuple[str, str] | None:
    """Why a module cannot be accelerated, and what to do instead; None for a module of any other class."""
    return next((_WRAPPERS[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)


class Search:
    """Makes programs for a module and its parts, and leaves both as they are.

    Args:
        root: the module.
        given: what modules are called with, as far as it is known.
        skipped: modules that the user wants to keep.
    """

    def __init__(self, root: nn.Module, given: Given, skipped: set[nn.Module]) -> None:
        self._paths = {module: path for path, module in root.named_modules()}
        self._given = given
        self._left: dict[nn.Module, str] = dict.fromkeys(skipped, "is named in skip")
        for module in root.modules():
            if program_of(module) is not None:
                self._left[module] = "is accelerated already"
            elif (wrapper := wrapper_of(module)) is not None:
                self._left[module] = wrapper[0]
        self._visited: set[nn.Module] = set()
        self._inlined: set[nn.Module] = set()
        self.programs: dict[nn.Module, Program] = {}
        self.summed = 1
        """Pixels over which a loop that is replaced may sum."""
        self.found: list[Found] = []
        self._visit(root)

    def _visit(self, module: nn.Module) -> None:
        if module in self._visited:
            return
        self._visited.add(module)
        if module in self._inlined:
            return  # a graph that contains it would no longer hold if its class changed
        if module in self._left:
            self._keep(module, self._left[module])
        elif isinstance(module, calls.NORMS):
            self._visit_norm(module)
        elif isinstance(module, nn.Sequential) or not type(module).__module__.startswith("torch."):
            self._visit_forward(module)
        else:
            self._visit_children(module)  # of a list, or of a wrapper such as DataParallel

    def _visit_children(self, module: nn.Module) -> None:
        for child in module.children():
            self._visit(child)

    def _visit_forward(self, module: nn.Module) -> None:
        try:
            traces = self._traces(module)
        except Untraceable as error:
            given = self._given.get(module) if _why_not_replaceable(module) is None else None
            pooling = find_pooling(module, given)
            if pooling is not None:
                self.programs[module], what = pooling
                self.found.append(Found(self._paths[module], what))
                self.summed = max(self.summed, given[0][1][0].numel())  # type: ignore[index]
            elif any(True for _ in module.children()):
                self._keep(module, f"its forward {error}; its parts are looked at one by one")
            self._visit_children(module)
            return
        versions: list[Version] = []
        found: list[Found] = []
        for made, arguments in traces:
            rewriter = Rewriter(module, made.graph, self._left.keys())
            rows = rewriter.rewrite()
            found += [row for row in rows if row not in found] if versions else rows
            versions.append(Version.of(made.graph, arguments, (*made.reads, *rewriter.reads)))
        self.found += [row.of(self._paths[module]) for row in found]
        if not all(row.why for row in found):
            self.programs[module] = Program(type(module), tuple(versions))
            self._inlined.update(*(made.inlined for made, _ in traces))
        for made, _ in traces:
            for leaf in made.called:
                if leaf in self._left or not isinstance(leaf, calls.NORMS):  # those are noted already
                    self._visit(leaf)
            self._visit_unused(module, made)

    def _visit_unused(self, module: nn.Module, made: Trace) -> None:
        """Look at the parts that the forward of a module does not use; others may call them."""
        used = made.called.keys() | made.inlined.keys()
        for child in module.children():
            if child in made.called:
                continue
            if any(part in used for part in child.modules()):
                self._visit_unused(child, made)
            else:
                self._visit(child)

    def _visit_norm(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        """Give a norm that nothing else could be done with a forward by the op."""
        if calls.eps_of(norm) is None:
            reason = "keeps running statistics" if keeps_statistics(norm) else "has hooks or a class of its own"
            self._keep(norm, reason)
            return
        source = "def forward(self, x):\n    return norm_alone(self, x)\n"
        version = Version(source, {"norm_alone": calls.norm_alone}, (TENSOR,), (Method(type(norm), "forward"),))
        self.programs[norm] = Program(type(norm), (version,))
        self.found.append(Found(self._paths[norm], "instance norm"))

    def _keep(self, module: nn.Module, why: str) -> None:
        self.found.append(Found(self._paths[module], type(module).__name__, why))

    def _traces(self, module: nn.Module) -> list[tuple[Trace, tuple[Any, ...]]]:
        """The graphs of a module's forward: one, or one for each mode if it reads the mode."""
        kind = type(module)
        reason = _why_not_replaceable(module)
        if reason is not None:
            raise Untraceable(reason)
        arguments = self._arguments(module)
        call = _caller(kind, arguments)
        inputs = sum(value is TENSOR for value in arguments)  # not count: arrays compare element by element
        left = {*self._left, *self.programs}
        first = trace(module, call, inputs, left)
        found = [first]
        if any(isinstance(reads, Reads) and reads.is_of_mode() for reads in first.reads):
            flags = [(part, part.training) for part in module.modules()]
            try:
                for mode in (True, False):
                    module.train(mode)
                    other = trace(module, call, inputs, left)
                    if all(other.reads != one.reads for one in found):
                        found.append(other)
            finally:
                for part, flag in flags:
                    part.training = flag
        return [(made, arguments) for made in found]

    def _arguments(self, module: nn.Module) -> tuple[Any, ...]:
        """What a forward is traced with: TENSOR where it gets a tensor, else a value."""
        parameters = parameters_of(type(module))
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise Untraceable("takes any number of arguments")
        if module not in self._given:
            return tuple(TENSOR if p.default is p.empty else _as_traced(p.name, p.default) for p in parameters)
        args, kwargs = self._given[module]
        bound = inspect.Signature(parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(_as_traced(p.name, bound.arguments[p.name]) for p in parameters)


def _as_traced(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        return TENSOR
    if isinstance(value, np.ndarray):
        raise Untraceable(f"takes {name}, which is an array")
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, Tensor | dict | list | nn.Module) for item in items):
        raise Untraceable(f"takes {name}, which holds several tensors")
    return copy.deepcopy(value)


def _why_not_replaceable(module: nn.Module) -> str | None:
    if "forward" in module.__dict__:
        return "was replaced by another function"
    if hasattr(module, "parametrizations"):
        return "is that of a parametrised module"
    if type(module).forward is nn.Module.forward:
        return "does not exist"
    if isinstance(inspect.getattr_static(module, "forward"), staticmethod | classmethod):
        return "belongs to its class"
    if hasattr(type(module).forward, "__wrapped__"):
        return "is decorated"
    if type(module).__call__ is not nn.Module.__call__:
        return "is called in a way of its own"
    return None


def _caller(kind: type[nn.Module], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """A function that calls a forward with tensors, and with the values of its other arguments."""
    parameters = parameters_of(kind)

    def call(module: nn.Module, *tensors: fx.Proxy) -> Any:
        remaining = list(tensors)
        args, kwargs = [], {}
        for parameter, value in zip(parameters, arguments, strict=True):
            passed = remaining.pop(0) if value is TENSOR else copy.deepcopy(value)
            if parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = passed
            else:
                args.append(passed)
        return kind.forward(module, *args, **kwargs)

    return call
