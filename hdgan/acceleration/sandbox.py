"""A module run on copies of its tensors, and left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hdgan.seeding import seed_everything

SEED = 20181117
"""Of whatever the comparison draws."""
_HOLDERS = (list, dict, set, Tensor, torch.Generator)


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Give a module its flags and attributes back, after what happens in the block.

    The lists, dicts, sets, tensors and random generators among the attributes get their contents back. What lies
    deeper, such as a tensor in a list, does not.
    """
    parts = [(part, dict(part.__dict__)) for part in module.modules()]
    held = [value for _, before in parts for value in before.values()]
    contents = [(value, _content(value)) for value in held if isinstance(value, _HOLDERS)]
    try:
        yield
    finally:
        for part, before in parts:
            part.__dict__.clear()
            part.__dict__.update(before)
        for value, content in contents:
            _refill(value, content)


@contextmanager
def sandbox(module: nn.Module, copied: Callable[[Tensor], Tensor] = Tensor.clone) -> Iterator[dict[str, Tensor]]:
    """Give a module copies of its parameters and buffers, and seed all generators.

    Afterwards everything is as before: the module, as far as `preserved` goes, and the generators. (functional_call of
    torch.func would leave the copies in a module that is registered at two places.)

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
                for registry in ("_parameters", "_buffers"):
                    part.__dict__[registry] = {name: copy_of(x) for name, x in part.__dict__[registry].items()}
            yield {name: copies[id(parameter)] for name, parameter in named.items()}
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def gpus_of(module: nn.Module) -> list[int]:
    """The GPUs on which a module has tensors."""
    return sorted({tensor.get_device() for tensor in (*module.parameters(), *module.buffers()) if tensor.is_cuda})


def _content(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.detach().clone() if isinstance(value, Tensor) else value.copy()


@torch.no_grad()
def _refill(value: Any, before: Any) -> None:
    if isinstance(value, torch.Generator):
        value.set_state(before)
    elif isinstance(value, Tensor):
        if not torch.equal(value, before):
            value.copy_(before)
    elif isinstance(value, list):
        value[:] = before
    else:
        value.clear()
        value.update(before)
