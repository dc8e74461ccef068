"""What a forward does while it is traced that its graph does not show."""

from __future__ import annotations

import copy
import dis
import gc
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from hdgan.ops import _torch_internals

_OWN = {*vars(nn.Module()), "_compiled_call_impl"} - {"training"}
"""What every module has. Parts and hooks are compared as a whole."""
_VALUES = (bool, int, float, complex, str, bytes, type(None), np.generic, Enum, torch.dtype, torch.device)
_REFUSED = {
    **dict.fromkeys(("isinstance", "type", "is_tensor", "__class__"), "asks for the type of a value"),
    "is_grad_enabled": "asks whether there are gradients",
    "is_autocast_enabled": "asks for autocast",
    "is_scripting": "asks whether it is scripted",
    "is_tracing": "asks whether it is traced",
    "is_compiling": "asks whether it is compiled",
    "random": "draws numbers outside of PyTorch",
    **dict.fromkeys(("environ", "getenv"), "reads the environment"),
    "open": "reads a file",
    "print": "prints",
    "warn": "warns",
    "setattr": "sets an attribute",
    "manual_seed": "seeds a generator",
    **dict.fromkeys(
        ("is_inference_mode_enabled", "get_default_dtype", "are_deterministic_algorithms_enabled"),
        "asks for a mode of PyTorch",
    ),
    **dict.fromkeys(
        ("vars", "globals", "locals", "__dict__", "_parameters", "_buffers", "_modules"), "reads variables as a whole"
    ),
    **dict.fromkeys(
        ("parameters", "named_parameters", "buffers", "named_buffers", "state_dict", "get_parameter", "get_buffer"),
        "reads parameters as Python objects",
    ),
}
"""Names in a function whose effect a graph does not have, and what the function does by them."""
_HIDDEN = {
    getattr(inspect.unwrap(function), "__code__", None): reason  # a function that moved to C has none
    for function, reason in (
        (torch.no_grad.__enter__, "switches gradients on or off"),
        (torch.enable_grad.__enter__, "switches gradients on or off"),
        (torch.set_grad_enabled.__init__, "switches gradients on or off"),
        (torch.inference_mode.__enter__, "switches gradients on or off"),
        (torch.autocast.__enter__, "switches autocast"),
        (checkpoint, "checkpoints a part of itself"),
        (checkpoint_sequential, "checkpoints a part of itself"),
        (torch.autograd.Function.apply, "has a derivative of its own"),
    )
}
"""Functions of PyTorch, by their code, whose effect a graph does not have."""
_WRITES = {
    "STORE_ATTR": "sets an attribute",
    "DELETE_ATTR": "deletes an attribute",
    "STORE_GLOBAL": "sets a global",
    "DELETE_GLOBAL": "deletes a global",
    "IMPORT_NAME": "imports a module",
}
_BLOCKS = ("SETUP_FINALLY", "SETUP_WITH", "BEFORE_WITH", "PUSH_EXC_INFO")
_NAMES, _ATTRIBUTES = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"), ("LOAD_ATTR", "LOAD_METHOD")
LIBRARIES = {"torch", "numpy", *sys.stdlib_module_names}
"""Packages whose functions are known and whose objects are left alone."""
_STATELESS = (ModuleType, type, FunctionType, nn.Module, fx.Proxy)
"""What a forward may find outside of it: a watched function, a class, a part, or a stand-in for a tensor."""


class Untraceable(Exception):
    """Why a module is not traced, as the end of a sentence that begins with its forward."""


class TraceWatch:
    """Notes what the modules of a tree read, and why their graphs would not be exact.

    Args:
        root: the traced module.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.kinds = {module: type(module) for module in root.modules()}
        """The classes of all modules, which are others while they are watched."""
        self.running = [root]
        """The modules whose forward runs, the innermost last."""
        self.reasons: dict[nn.Module, str] = {}
        """Modules of which a graph would not be exact, and why."""
        self.values: dict[nn.Module, dict[tuple[str, ...], Any]] = {}
        """The attributes of each module that were read, by the names that lead to them."""
        self.globals: dict[tuple[str, tuple[str, ...]], Any] = {}
        """The globals that were read, by the name of their Python module and the names that lead to them from there."""
        self.methods: dict[nn.Module, dict[str, None]] = {root: {"forward": None}}
        """The methods of each module that were read, other than those of every module."""
        self._objections: dict[CodeType, str | None] = {}

    def refuse(self, reason: str) -> None:
        """Note that a graph of the running module would not be exact."""
        self.reasons.setdefault(self.running[-1], reason)

    def note_method(self, module: nn.Module, method: MethodType) -> None:
        """Note that a method of the class of a module was read."""
        name, function = method.__name__, method.__func__
        of_class = method.__self__ is module and getattr(self.kinds[module], name, None) is function
        if of_class and getattr(nn.Module, name, None) is not function:
            self.methods.setdefault(module, {})[name] = None

    def note(self, module: nn.Module, names: tuple[str, ...], value: Any) -> Any:
        """Note that an attribute was read, and return what the forward gets to see of it."""
        if _is_constant(value) or (_is_stateless(value) and not isinstance(value, ModuleType)):
            self.values.setdefault(module, {})[names] = value
        elif hasattr(value, "__dict__") and not isinstance(value, Tensor | ModuleType):
            return _Options(self, module, names, value)
        elif not isinstance(value, ModuleType):
            self.refuse(f"reads {'.'.join(names)}, a {type(value).__name__} that may change")
            return copy.copy(value)
        return value

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch what runs in the block.

        The modules tell what is read of them by classes between them and their own. Python tells which functions run.
        Garbage is not collected meanwhile: what `gc.callbacks` and finalizers do is not what the forward does.
        """
        classes: dict[type, type] = {}
        collects = gc.isenabled()
        gc.disable()
        try:
            for module, kind in self.kinds.items():
                if not isinstance(module, torch.jit.ScriptModule):
                    if kind not in classes:
                        classes[kind] = _watched_class(self, kind)
                    module.__class__ = classes[kind]
            sys.setprofile(self._on_call)
            yield
        finally:
            sys.setprofile(None)  # accelerate refuses to run under a profiler
            if collects:
                gc.enable()
            for module, kind in self.kinds.items():
                if type(module) is not kind:
                    module.__class__ = kind

    def _on_call(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code in _HIDDEN:  # is the better reason: what PyTorch imports for it may ask for types
            self.reasons[self.running[-1]] = _HIDDEN[code]
            return
        module = str(frame.f_globals.get("__name__", ""))
        own = module.startswith("hdgan.acceleration.") or module == _torch_internals.__name__
        if own or module.split(".")[0] in LIBRARIES:
            return
        if code not in self._objections:
            self._objections[code] = _objection(code) or self._note_globals(frame)
        if reason := self._objections[code] or _objection_to_closure(frame):
            self.refuse(reason)

    def _note_globals(self, frame: FrameType) -> str | None:
        """Note which globals a function reads, or say why that is not enough."""
        module = str(frame.f_globals.get("__name__", ""))
        for names in _globals_of(frame.f_code):
            if names[0] not in frame.f_globals:
                continue  # a builtin
            value, depth = frame.f_globals[names[0]], 1
            while (
                isinstance(value, ModuleType | type | FunctionType)
                and depth < len(names)
                and hasattr(value, names[depth])
            ):
                value, depth = getattr(value, names[depth]), depth + 1
            importable = getattr(sys.modules.get(module), "__dict__", None) is frame.f_globals
            if _is_constant(value) and not importable:
                return f"reads the global {names[0]} of a module that cannot be imported"
            if _is_constant(value) or (_is_own_function(value) and importable):
                self.globals[module, names[:depth]] = value
            elif not _is_stateless(value) or isinstance(value, ModuleType):
                return f"reads {'.'.join(names[:depth])}, a {type(value).__name__} that may change"
        return None


def _is_value(value: Any) -> bool:
    return isinstance(value, _VALUES)


def _is_constant(value: Any) -> bool:
    return _is_value(value) or (isinstance(value, tuple) and all(map(_is_constant, value)))


def _is_own_function(value: Any) -> bool:
    return isinstance(value, FunctionType) and str(value.__module__).split(".")[0] not in LIBRARIES


def _is_stateless(value: Any) -> bool:
    if isinstance(value, MethodType | BuiltinFunctionType):  # such as random.choice, of a generator
        return value.__self__ is None or isinstance(value.__self__, ModuleType | type)
    return isinstance(value, _STATELESS) or (callable(value) and type(value).__module__.split(".")[0] in LIBRARIES)


def values_of(module: nn.Module) -> dict[str, Any]:
    """The flags, numbers and names that a module holds, except for its mode."""
    held = {name: value for name, value in vars(module).items() if _is_value(value)}
    return {name: value for name, value in held.items() if name not in _OWN and name != "training"}


def _objection(code: CodeType) -> str | None:
    """What a function does that a graph does not show."""
    for step in dis.get_instructions(code):
        if step.opname in _WRITES:
            return f"{_WRITES[step.opname]} ({step.argval})"
        if step.opname in _BLOCKS:
            return "has a with or try block"
        loads = step.opname in _NAMES or (step.opname in _ATTRIBUTES and step.argval != "type")  # x.type() casts
        if loads and step.argval in _REFUSED:
            return _REFUSED[step.argval]
    return None


def _globals_of(code: CodeType) -> Iterator[tuple[str, ...]]:
    """The globals that a function reads, each with the attributes that are read from it at once: (torch, cat)."""
    names: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if names and step.opname in _ATTRIBUTES:
            names = *names, step.argval
        elif step.opname not in ("EXTENDED_ARG", "CACHE", "PUSH_NULL"):
            if names:
                yield names
            names = (step.argval,) if step.opname == "LOAD_GLOBAL" else ()
    if names:
        yield names


def _objection_to_closure(frame: FrameType) -> str | None:
    """What a function does with variables of the function around it that a graph does not show."""
    code = frame.f_code
    outside = {name for name in code.co_freevars if not _is_local(frame, name)}
    for step in dis.get_instructions(code) if outside else ():
        if step.argval not in outside or step.opname == "COPY_FREE_VARS":
            continue
        if step.opname in ("STORE_DEREF", "DELETE_DEREF"):
            return f"sets a variable outside of it ({step.argval})"
        if not _is_stateless(frame.f_locals.get(step.argval, None)):
            return f"reads a variable outside of it that may change ({step.argval})"
    return None


def _is_local(frame: FrameType, name: str) -> bool:
    """Whether a variable of the function around this one belongs to a call that is still running."""
    outer = frame.f_back
    while outer is not None:
        if name in outer.f_code.co_cellvars and _contains(outer.f_code, frame.f_code):
            return True
        outer = outer.f_back
    return False


def _contains(code: CodeType, inner: CodeType) -> bool:
    parts = [part for part in code.co_consts if isinstance(part, CodeType)]
    return inner in parts or any(_contains(part, inner) for part in parts)


def _watched_class(watch: TraceWatch, kind: Any) -> type:
    """A subclass whose instances tell which of their attributes are read."""
    get: Any = kind.__getattribute__

    def read(self: Any, name: str) -> Any:
        value = get(self, name)
        if isinstance(value, MethodType):
            watch.note_method(self, value)
        held = name in object.__getattribute__(self, "__dict__") or _is_value(value)  # or its class holds it
        return watch.note(self, (name,), value) if held and name not in _OWN and not name.startswith("__") else value

    def read_registered(self: Any, name: str) -> Any:
        try:
            value = kind.__getattr__(self, name)  # not sooner: torch.fx exchanges it for a while
        except AttributeError:
            watch.refuse(f"looks for {name}, which is not there")
            raise
        return watch.note(self, (name,), None) if value is None else value  # a part or parameter that may be set

    names = {"__getattribute__": read, "__getattr__": read_registered, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), names)


class _Options:
    """An object that a module holds, such as parsed options; what is read of it is noted."""

    def __init__(self, watch: TraceWatch, module: nn.Module, names: tuple[str, ...], value: Any) -> None:
        self.__dict__["_value"] = value
        self.__dict__["_read"] = lambda name: watch.note(module, (*names, name), getattr(value, name))

    def __getattr__(self, name: str) -> Any:
        return self._read(name)

    def _as_a_whole(self, *_: Any) -> Any:
        raise Untraceable(f"uses an object as a whole that may change ({type(self._value).__name__})")

    __eq__ = __ne__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __hash__ = __call__ = _as_a_whole
