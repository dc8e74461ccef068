"""Peak memory, and tensors without memory. Only this module uses names of PyTorch that are not public.

PyTorch documents both classes for extensions, but has no public name for them. `estimate_stage` imports this module
when it is called, and says so if a version of PyTorch has moved them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["FakeTensorMode", "PeakMeter"]


class PeakMeter(TorchDispatchMode):
    """Inside this context, counts the bytes of tensors that operators make, as long as they live.

    Attributes:
        now: bytes that live.
        peak: the most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._living: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        # A storage that a view shares with an argument was there before, or is counted already.
        known = {tensor.untyped_storage() for tensor in _tensors((*args, *(kwargs or {}).values()))}
        for tensor in _tensors(results):
            if tensor.untyped_storage() not in known:
                self._add(tensor.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._living:
            return

        def forget(_: Any) -> None:
            del self._living[key]
            self.now -= size

        self._living[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among the arguments or results of an operator, which nests them in lists and tuples only."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
