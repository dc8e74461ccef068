"""A module run on copies of its tensors, and left as it was."""

from __future__ import annotations

import random
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hdgan.acceleration.watching import LIBRARIES
from hdgan.ops._torch_internals import exchange_tensors
from hdgan.seeding import seed_everything

SEED = 20181117
"""Of whatever the comparison draws."""
_PLAIN = (int, float, complex, str, bytes, type(None), type, ModuleType, FunctionType, random.SystemRandom)
"""What has nothing in it that changes."""


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Give a module its flags and attributes back, after what happens in the block.

    Lists, dicts, sets, tensors, arrays and random generators get their contents back, and objects their attributes,
    however deep in the attributes of a module they lie. Objects of PyTorch, NumPy and Python itself are left alone, as
    are the parameters and buffers of the module, which belong to `sandbox`.
    """
    kept = [_kept(value) for value in _held(module)]
    try:
        yield
    finally:
        with torch.no_grad():
            for give_back in kept:
                give_back()


@contextmanager
def sandbox(module: nn.Module, copied: Callable[[Tensor], Tensor] = Tensor.clone) -> Iterator[dict[str, Tensor]]:
    """Give a module copies of its parameters and buffers, and seed all generators.

    Afterwards everything is as before: the module, as far as `preserved` goes, and the generators.

    Args:
        module: with all of its parts.
        copied: makes the copy of a parameter or buffer.

    Yields:
        The copies of the parameters by their names.
    """
    gpus = gpus_of(module)
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the module may draw from it
    copies: dict[int, Tensor] = {}

    def copy_of(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in copies:
            copies[id(tensor)] = copied(tensor)
        return copies[id(tensor)]

    with torch.random.fork_rng(gpus), preserved(module):
        seed_everything(SEED)
        try:
            named = dict(module.named_parameters())
            for part in module.modules():
                exchange_tensors(part, copy_of)
            yield {name: copies[id(parameter)] for name, parameter in named.items()}
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def gpus_of(module: nn.Module) -> list[int]:
    """The GPUs on which a module has tensors."""
    return sorted({tensor.get_device() for tensor in (*module.parameters(), *module.buffers()) if tensor.is_cuda})


def _held(module: nn.Module) -> Iterator[Any]:
    """What a module holds that may change: its attributes, and all that can be reached from them."""
    registered = (*module.modules(), *module.parameters(), *module.buffers())
    seen = {id(value) for value in registered}
    waiting: list[Any] = [vars(part) for part in module.modules()]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen and not isinstance(value, _PLAIN) and not _is_meta(value):
            seen.add(id(value))
            yield value
            waiting += _inside(value)


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Tensor | np.ndarray):
        return ()
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value
    foreign = type(value).__module__.split(".")[0] not in LIBRARIES
    is_known = foreign or isinstance(value, nn.Module | Namespace | SimpleNamespace)
    return (vars(value),) if is_known and hasattr(value, "__dict__") else ()


def _fill_tensor(x: Tensor, before: Tensor) -> None:
    if not torch.equal(x, before):
        x.copy_(before)


def _fill_array(x: np.ndarray[Any, Any], before: np.ndarray[Any, Any]) -> None:
    if x.flags.writeable and not np.array_equal(x, before):
        x[...] = before


def _fill_sequence(items: list[Any] | deque[Any], before: list[Any]) -> None:
    if len(items) != len(before) or any(one is not other for one, other in zip(items, before, strict=True)):
        items.clear()
        items.extend(before)


def _fill_dict(table: dict[Any, Any], before: dict[Any, Any]) -> None:
    if list(table) != list(before) or any(table[key] is not value for key, value in before.items()):
        table.clear()
        table.update(before)


def _fill_set(items: set[Any], before: set[Any]) -> None:
    items.clear()
    items.update(before)


_KINDS: tuple[tuple[Any, Callable[[Any], Any], Callable[[Any, Any], Any]], ...] = (
    (torch.Generator, torch.Generator.get_state, torch.Generator.set_state),
    (
        np.random.Generator,
        lambda one: one.bit_generator.state,
        lambda one, state: setattr(one.bit_generator, "state", state),
    ),
    (np.random.RandomState, np.random.RandomState.get_state, np.random.RandomState.set_state),
    (random.Random, random.Random.getstate, random.Random.setstate),
    (Tensor, lambda x: x.detach().clone(), _fill_tensor),
    (np.ndarray, lambda x: x.copy() if x.flags.writeable else x, _fill_array),
    ((list, deque), list, _fill_sequence),
    (dict, dict, _fill_dict),
    (set, set, _fill_set),
)
"""What may change, how its contents are kept, and how it gets them back."""


def _kept(value: Any) -> Callable[[], Any]:
    """A function that gives a value the contents back that it has now."""
    for kind, content_of, fill in _KINDS:
        if isinstance(value, kind):
            content = content_of(value)
            return lambda: fill(value, content)
    return lambda: None
