"""Instance-wise average pooling, which is recognised by what it computes.

NVIDIA's encoder loops over the instances of a map in Python, and others loop in other ways. Such a forward has no
graph. But if a part of it gives an image, and the forward gives the mean of that image over each instance, for the
example and for other maps, forward and backward, it is pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hdgan.acceleration import calls
from hdgan.acceleration.parity import ParityError, compare
from hdgan.acceleration.program import IDS, TENSOR, Program, Version, install, parameters_of, uninstall


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
    for name, _ in module.named_children():
        program = _program(module, name)
        if all(_agrees(module, program, (x, other)) for other in _maps(ids)):
            return program, f"instance-wise average pooling of {name}"
    return None


def _is_image(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


def _is_map(ids: Any, x: Tensor) -> bool:
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
        return False
    return tuple(ids.shape) == (x.shape[0], 1, *x.shape[2:])


def _maps(ids: Tensor) -> list[Tensor]:
    """The example's map and two more: few ids in many regions, and stripes of large ids that differ by image."""
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 4, ids.shape, generator=generator)
    rows = torch.arange(ids.shape[2]).view(1, 1, -1, 1) // max(ids.shape[2] // 5, 1)
    stripes = (rows + 26 + 2 * torch.arange(ids.shape[0]).view(-1, 1, 1, 1)).expand(ids.shape)
    return [ids, *(other.to(ids) for other in (few, stripes))]


def _program(module: nn.Module, name: str) -> Program:
    source = (
        f"def forward(self, x, ids):\n"
        f"    y = self.{name}(x)\n"
        f"    if y.shape[2:] != ids.shape[2:]:\n"
        f"        return original(self, x, ids)\n"
        f"    return pooled(y, ids)\n"
    )
    names = {"pooled": calls.pooled, "original": type(module).forward}
    return Program(type(module), (Version(source, names, (TENSOR, IDS), ()),))


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
        compare(module, (arguments, {}), originally)
    except ParityError:
        return False
    finally:
        uninstall(module)
    return True
