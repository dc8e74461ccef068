"""How much memory a computation holds, on any device: for the estimate before a run, and for benchmarks.

Counts the storages that PyTorch's operators allocate, not the allocator's rounding nor what libraries take for
themselves.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class MemoryMeter(TorchDispatchMode):
    """Inside this context, counts the bytes of tensors that are made and still live.

    Args:
        model: its modules' names say where the memory was allocated; None counts all under "".

    Attributes:
        now: bytes that live.
        peak: the most that lived at once.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._model = model
        self._living: dict[int, tuple[weakref.ref[Any], str, int]] = {}
        self._module = [""]

    def __enter__(self) -> MemoryMeter:
        self._named = self._naming()
        self._named.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._named.__exit__(None, None, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        # What a view shares with an argument was there before, or is counted already.
        known = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for result in tree_iter(results):
            if isinstance(result, Tensor) and result.untyped_storage()._cdata not in known:
                self._add(result.untyped_storage())
        return results

    def by_module(self) -> Counter[str]:
        """The bytes that live, by the innermost module that allocated them."""
        counts: Counter[str] = Counter()
        for _, module, size in self._living.values():
            counts[module] += size
        return counts

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._living:
            return
        size = storage.nbytes()

        def forget(_: Any) -> None:
            del self._living[key]
            self.now -= size

        self._living[key] = weakref.ref(storage, forget), self._module[-1], size
        self.now += size
        self.peak = max(self.peak, self.now)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Keep track of the module that runs."""
        names = {module: name for name, module in self._model.named_modules()} if self._model is not None else {}
        hooks = []

        def leave(*_: Any) -> None:
            self._module.pop()

        for module, name in names.items():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._module.append(name)))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True)
class Held:
    """What a computation holds while its result lives."""

    result: Any
    total: int
    """Bytes of the result and of what its backward pass needs, without what was there before."""
    by_module: Counter[str]
    """The same by the innermost module that allocated it."""


def held_after(function: Callable[[], Any], model: nn.Module | None = None) -> Held:
    """Run `function` and count what it leaves allocated: its result, and what is kept for the backward pass."""
    with MemoryMeter(model) as meter:
        result = function()
    return Held(result, meter.now, meter.by_module())
