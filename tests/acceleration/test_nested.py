"""Tensors in nested values."""

from __future__ import annotations

from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdgan.acceleration.nested import tensors_in, with_tensors

X, Y = torch.zeros(1), torch.ones(1)
Pair = namedtuple("Pair", "first second")


class Listed(list[Any]):
    """A list of its own class."""


class Output(OrderedDict[str, Any]):
    """A dict of its own class."""


@dataclass(frozen=True)
class Frozen:
    image: Tensor
    size: int


@dataclass(slots=True)
class Slotted:
    image: Tensor
    size: int


VALUES: dict[str, tuple[Any, list[str]]] = {
    "tensor": (X, [""]),
    "tuple": ((X, 1, (Y,)), ["[0]", "[2][0]"]),
    "named tuple": (Pair(X, [Y]), ["[0]", "[1][0]"]),
    "list": (Listed([X, Y]), ["[0]", "[1]"]),
    "queue": (deque([1, X]), ["[1]"]),
    "dict": (Output(a=X, b={1: Y}), ["['a']", "['b'][1]"]),
    "frozen": (Frozen(X, 2), [".image"]),
    "slots": (Slotted(X, 2), [".image"]),
    "object": (SimpleNamespace(x=X, deep=SimpleNamespace(y=Y)), [".x", ".deep.y"]),
    "twice": ([[X]] * 2, ["[0][0]", "[1][0]"]),
    "nothing": ({"a": [1, "b", None]}, []),
    "a module and a class": ([nn.Linear(1, 1), Frozen, torch], []),
}


@pytest.mark.parametrize("name", VALUES)
def test_tensors_are_found_and_exchanged(name: str) -> None:
    value, paths = VALUES[name]
    assert [path for path, _ in tensors_in(value)] == paths
    before = [x for _, x in tensors_in(value)]
    made = with_tensors(value, lambda x: x + 2)
    assert type(made) is type(value)
    assert [(path, float(x)) for path, x in tensors_in(made)] == [
        (path, float(x) + 2) for path, x in zip(paths, before, strict=True)
    ]
    assert all(x is y for (_, x), y in zip(tensors_in(value), before, strict=True))


def test_what_holds_no_tensor_is_the_same_object() -> None:
    options = SimpleNamespace(deep=True)
    made = with_tensors([options, X], torch.clone)
    assert made[0] is options


def test_an_object_that_holds_itself() -> None:
    value = SimpleNamespace(x=X)
    value.own = value
    assert [path for path, _ in tensors_in(value, "output")] == ["output.x"]
    made = with_tensors(value, torch.clone)
    assert made.own is made is not value
    assert made.x is not X
