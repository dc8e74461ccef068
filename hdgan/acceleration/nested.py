"""Tensors in what a network takes and gives: in lists, dicts, dataclasses and other objects."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

_WHOLE = (type, ModuleType, FunctionType, MethodType, nn.Module)
"""What has attributes, but is not there to hold values."""


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a value, each with the way to it, such as "[0].features".

    Args:
        value: a tensor, or anything that holds some.
        path: the way to the value itself.
    """
    yield from _tensors_in(value, path, ())


def _tensors_in(value: Any, path: str, around: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif id(value) not in around:  # an object may hold itself
        for step, held in _steps(value):
            yield from _tensors_in(held, path + step, (*around, id(value)))


def _steps(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", held) for key, held in value.items())
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{place}]", held) for place, held in enumerate(value))
    else:
        yield from ((f".{name}", held) for name, held in _attributes(value).items())


def _attributes(value: Any) -> Mapping[str, Any]:
    if isinstance(value, _WHOLE):
        return {}
    if is_dataclass(value):  # it may have slots
        return {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
    return getattr(value, "__dict__", {})


def with_tensors(value: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    """A value with another tensor in the place of each. What holds tensors is copied; the rest is the same object."""
    return _with_tensors(value, changed, {})


def _with_tensors(value: Any, changed: Callable[[Tensor], Tensor], copies: dict[int, Any]) -> Any:
    """The same, where `copies` are those of all that is around the value, by their numbers."""
    if isinstance(value, Tensor):
        return changed(value)
    if id(value) in copies:  # an object may hold itself
        return copies[id(value)]
    if not any(True for _ in tensors_in(value)):
        return value
    if isinstance(value, tuple):
        items = [_with_tensors(item, changed, copies) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    made = copies[id(value)] = copy.copy(value)
    if isinstance(value, list | deque):
        for place, item in enumerate(value):
            made[place] = _with_tensors(item, changed, copies)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            made[key] = _with_tensors(item, changed, copies)
    else:
        for name, item in _attributes(value).items():
            object.__setattr__(made, name, _with_tensors(item, changed, copies))  # a dataclass may be frozen
    del copies[id(value)]  # in another place it is copied again, as `tensors_in` finds it again
    return made
