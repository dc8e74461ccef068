"""Pickles of PyTorch and NumPy as plain values, read by an interpreter that cannot call anything.

`torch.load(weights_only=True)` runs no foreign code, but it calls constructors with the numbers of the file, so a
hundred bytes can ask for any amount of memory. Here a tensor stays a description until it has been compared with the
file, and everything that is not a plain value becomes an `Unknown`. The standard library's `pickletools` decodes the
instructions; its unpicklers could be restricted only through their private attributes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from hdgan.errors import CheckpointError
from hdgan.files.limits import max_bytes, require_bounded

_BYTES_PER_INSTRUCTION = 1024
"""More bytes of memory than any instruction takes; with the usual limit a pickle may have a million instructions."""
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle refers to. It is never imported."""

    name: str


@dataclass
class Unknown:
    """The result of a call that is not a plain value, such as a module."""

    name: str
    """Name of the class or function."""
    arguments: Any = ()
    state: Any = None
    """What the pickle sets on it: of a module, its parameters, buffers and modules."""


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors share, as the pickle describes them."""

    kind: str
    """The name of its class, such as torch.FloatStorage."""
    key: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, as the pickle describes it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Pickled(NamedTuple):
    """The content of one pickle."""

    content: Any
    """None, numbers, text, bytes, lists, tuples, dicts, `StoredTensor`, `Storage`, `Global` and `Unknown`."""
    names: set[str]
    """Names of all classes and functions that it mentions."""
    storages: dict[str, Storage]
    """All storages that it mentions, by their keys."""


def read_pickle(stream: IO[bytes], path: Path) -> Pickled:
    """Read one pickle, up to its end.

    Args:
        stream: at the start of the pickle, and afterwards at its end.
        path: the file, for the message.

    Raises:
        CheckpointError: the pickle has more instructions than the limit allows.
        ValueError, LookupError, TypeError: it is damaged.
    """
    interpreter = _Interpreter(path, max_bytes() // _BYTES_PER_INSTRUCTION)
    for opcode, argument, _ in cast("Iterator[Any]", pickletools.genops(stream)):
        interpreter.step(opcode.name, argument)
    (content,) = interpreter.stack
    return Pickled(content, interpreter.names, interpreter.storages)


_MARK = object()
_CONSTANTS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
})  # fmt: skip
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Unknown("builtins.set"),  # every module has one, and no tensor is in it
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = ("PROTO", "FRAME", "STOP")


@dataclass
class _Interpreter:
    path: Path
    most: int
    used: int = 0
    names: set[str] = field(default_factory=set)
    storages: dict[str, Storage] = field(default_factory=dict)
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        self._count(1)
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name]())
        elif name in _TUPLES:
            at = len(stack) - _TUPLES[name]
            if at < 0:
                raise ValueError("an empty tuple")
            stack[at:] = [tuple(stack[at:])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name not in _IGNORED:
            self._combine(name, argument)

    def _combine(self, name: str, argument: Any) -> None:
        """Carry out an instruction that combines several values into one."""
        stack = self.stack
        match name:
            case "POP":
                stack.pop()
            case "LIST":
                stack.append(self._marked())
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "DICT":
                items = self._marked()
                stack.append({})
                self._update(items)
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._marked())
            case "SETITEM":
                self._update(self._popped(2))
            case "SETITEMS":
                self._update(self._marked())
            case "ADDITEMS":
                self._marked()
            case "GLOBAL":
                self._mention(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                self._mention(*self._popped(2))
            case "REDUCE" | "NEWOBJ":
                stack.append(self._called(*self._popped(2)))
            case "BUILD":
                target, state = self._popped(2)
                if isinstance(target, Unknown):
                    target.state = state
                stack.append(target)
            case "BINPERSID":
                stack.append(self._persistent(*stack.pop()))
            case _:
                raise ValueError(f"weights need no {name}")

    def _count(self, instructions: int) -> None:
        self.used += instructions
        if self.used > self.most:
            size = self.used * _BYTES_PER_INSTRUCTION
            require_bounded(self.path, size, "a pickle of too many objects", CheckpointError)

    def _popped(self, n: int) -> list[Any]:
        """Remove the last n values from the stack; returns them in the order in which they were pushed."""
        return [self.stack.pop() for _ in range(n)][::-1]

    def _marked(self) -> list[Any]:
        """Remove everything above the last mark, and the mark; returns what was above it."""
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("only lists are appended to")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise TypeError("only tables are written to")
        self.stack[-1].update(_table(zip(items[::2], items[1::2], strict=True)))

    def _mention(self, module: str, name: str) -> None:
        if len(module) + len(name) > _LONGEST_NAME:  # a pickle can join one long text any number of times
            raise ValueError("a name that is far too long")
        named = Global(f"{module:s}.{name:s}")
        self.names.add(named.name)
        self.stack.append(named)

    def _persistent(self, kind: Any, *rest: Any) -> Any:
        """What torch.save does not pickle itself: a storage, or a class with its source in old whole modules."""
        if kind == "module":
            return rest[0]
        storage, key, _, numel, *view = rest
        if kind != "storage" or (view and view[0] is not None) or type(numel) is not int or numel < 0:
            raise ValueError("no storage")
        if type(key) is not str:
            raise TypeError("a storage without a name")
        self.storages[key] = Storage(storage.name, key, numel)
        return self.storages[key]

    def _called(self, function: Any, arguments: Any) -> Any:
        """The result of a call of one of the few functions that create weights; an `Unknown` for any other."""
        if not isinstance(function, Global):
            raise TypeError("something that is called is not a function")
        if function.name == "collections.OrderedDict":
            items = arguments[0] if arguments else ()
            self._count(len(items))  # a pickle can have one list copied any number of times
            return _table(items)
        if function.name in _TENSORS:
            return _tensor(*arguments[:4])
        if function.name in _PARAMETERS:
            return arguments[0]
        if function.name == _SUBCLASSED and arguments[0] != function:
            return self._called(arguments[0], arguments[2])
        return Unknown(function.name, arguments)


def _table(items: Any) -> dict[Any, Any]:
    """A dict whose keys are plain values: hashing a deeply nested tuple would overflow the stack."""
    table = {}
    for key, value in items:
        if not isinstance(key, (str, bytes, int, float, type(None))):
            raise TypeError(f"a {type(key).__name__} as a key")
        table[key] = value
    return table


_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = (
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter",
)  # fmt: skip
_SUBCLASSED = "torch._tensor._rebuild_from_type_v2"


def _tensor(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
    """A tensor within its storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 64:
        raise TypeError("no tensor")
    if any(type(number) is not int or not 0 <= number < 2**62 for number in numbers):
        raise ValueError("a tensor of impossible size")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.numel:
        raise ValueError("a tensor that is larger than its storage")
    return StoredTensor(storage, offset, size, stride)
