"""Instance-wise average pooling, which is recognised by what it computes.

NVIDIA's encoder loops over the instances of a map in Python, and others loop in other ways. Such a forward has no
graph. But if a part of it gives an image, and the forward gives the mean of that image over each instance, for the
example and for other maps, each of them with its mirror image in one batch, forward and backward, it is pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.acceleration import calls
from hdgan.acceleration.parity import ParityError, compare
from hdgan.acceleration.program import IDS, TENSOR, Program, Version, install, is_integer, parameters_of, uninstall
from hdgan.acceleration.reads import Method, Read, Reads
from hdgan.acceleration.watching import values_of
from hdgan.ops._torch_internals import names_in


def find_pooling(
    module: nn.Module, given: tuple[tuple[Any, ...], Mapping[str, Any]] | None
) -> tuple[Program, str] | None:
    """The program of a module whose forward is the instance mean of what one of its parts makes of its input.

    Args:
        module: has no graph.
        given: what it is called with in the example.

    Returns:
        The program, and what it replaces; None if the forward computes something else.
    """
    if given is None or given[1] or len(given[0]) != 2 or len(parameters_of(type(module))) != 2:
        return None
    x, ids = given[0]
    if not _is_image(x) or not _is_map(ids, x):
        return None
    doubled = torch.cat([x, x.flip(-1)])  # a batch of one hides a mean over the whole batch
    for name, _ in module.named_children():
        program = _program(module, name)
        if all(_agrees(module, program, (doubled, other)) for other in _maps(torch.cat([ids, ids.flip(-1)]))):
            return program, f"instance-wise average pooling of {name}"
    return None


def _is_image(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


def _is_map(ids: Any, x: Tensor) -> bool:
    batch, _, height, width = x.shape
    shapes = (batch, 1, height, width), (batch, height, width)
    return isinstance(ids, Tensor) and is_integer(ids) and tuple(ids.shape) in shapes


def _maps(ids: Tensor) -> list[Tensor]:
    """A map and two more: few ids in many regions, and stripes of large ids that differ by image.

    Datasets count the instances of class c from 1000 c, so that forwards may treat ids from 1000 on in another way.
    """
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 4, ids.shape, generator=generator)
    batch, height = ids.shape[0], ids.shape[-2]
    rows = torch.arange(height).unsqueeze(1) // max(height // 5, 1)
    if torch.iinfo(ids.dtype).max >= 2**15 - 1:
        rows = rows + 26000 * (rows % 2)
    stripes = rows + 26 + 2 * torch.arange(batch).view(-1, *[1] * (ids.dim() - 1))
    return [ids, *(other.to(ids) for other in (few, stripes.expand(ids.shape)))]


def _program(module: nn.Module, name: str) -> Program:
    source = (
        f"def forward(self, x, ids):\n"
        f"    y = getattr(self, {name!r})(x)\n"
        f"    if y.shape[2:] != ids.shape[-2:] or y.shape[0] != ids.shape[0]:\n"
        f"        return original.forward(self, x, ids)\n"
        f"    return pooled(y, ids)\n"
    )
    names = {"pooled": calls.pooled, "original": type(module)}
    flags = tuple(((name,), value) for name, value in values_of(module).items())  # all, since any may be read
    methods = _methods_of(type(module))
    reads = Reads((), None, names_in(module), False, flags, methods)
    read: tuple[Read, ...] = (reads, *(Method(type(module), name) for name in methods))
    return Program(type(module), (Version(source, names, (TENSOR, IDS), read),))


def _methods_of(kind: type[nn.Module]) -> tuple[str, ...]:
    """The methods that a class has beside those of every module."""
    own = kind.__mro__[: kind.__mro__.index(nn.Module)]
    return tuple({name: None for base in own for name, held in vars(base).items() if isinstance(held, FunctionType)})


def _agrees(module: nn.Module, program: Program, arguments: tuple[Tensor, Tensor]) -> bool:
    @contextmanager
    def originally() -> Iterator[None]:
        uninstall(module)
        try:
            yield
        finally:
            install(module, program)

    install(module, program)
    try:
        compare(module, (arguments, {}), originally, arguments[1][0].numel())
    except ParityError:
        return False
    finally:
        uninstall(module)
    return True
