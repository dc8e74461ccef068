"""Counts what the CUDA kernels of an op do to memory, by a build in which every access is told of (tests/csrc/counts).

The GPU that is counted for is an H200 at 1/33 of its size: 4 multiprocessors, and as much of its L2 cache. An image
whose planes are 1/33 of those of a real one is to it what the real one is to the H200.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from tests.csrc.build_emulated import COUNTED, CSRC, build_extension
from tests.ops.conftest import on_host, take_kernels

MULTIPROCESSORS = 4
L2_BYTES = (50 << 20) * MULTIPROCESSORS // 132
SECTOR = 32
KERNEL = re.compile(r"HD_(?:CUDA_)?(?:KERNEL|SIZE)\(\s*(\w+),(.*?)\)\n", re.DOTALL)
SCRATCH = {"instance_index_fwd": ("table", "ranks", "sizes")}
"""Tensors, besides those that are called scratch, in which a function only keeps what it needs later.

Their traffic is no part of the least that it can do."""


STREAMED = {"instance_norm_act_fwd": ("y",), "instance_norm_act_bwd": ("dx", "dresidual")}
"""Tensors that a function stores with the hint that they are not read again, so that they leave the cache first."""


@dataclass(frozen=True)
class Access:
    """What the warps of one kernel did to one tensor: load from it, store to it, or change it by atomics."""

    kernel: str
    tensor: str
    kind: str
    instructions: int
    lanes: int
    bytes: int
    sectors: int
    unique: int

    @property
    def width(self) -> float:
        """Bytes of a lane, on average."""
        return self.bytes / self.lanes


@dataclass
class Call:
    """One call of a function of hdgan._C. Bytes that its kernels read from memory and wrote to it are by tensor."""

    function: str
    accesses: list[Access] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    @property
    def dram(self) -> int:
        """Bytes that went between memory and the cache."""
        return sum(self.read.values()) + sum(self.written.values())

    @property
    def kernels(self) -> list[str]:
        return list(dict.fromkeys(access.kernel for access in self.accesses))

    def floor(self) -> int:
        """Bytes of the sectors of its inputs and outputs, each of which has to be moved once."""
        touched: dict[tuple[str, str], int] = {}
        for access in self.accesses:
            kind = "load" if access.kind == "load" else "store"
            if access.tensor not in ("scratch", *SCRATCH.get(self.function, ())):
                key = access.tensor, kind
                touched[key] = max(touched.get(key, 0), access.unique * SECTOR)
        return sum(touched.values())


@cache
def arguments() -> dict[str, list[str]]:
    """The names of the arguments of each function, from csrc/kernels.h."""
    found = KERNEL.findall((CSRC / "kernels.h").read_text())
    return {name: [argument.split()[-1] for argument in listed.split(",")] for name, listed in found}


class Counter:
    """The kernels of hdgan._C by their names, each call of which is counted."""

    def __init__(self, path: Path) -> None:
        self._kernels = _load(path, "_C")
        self._counts = _load(path, "_counts")
        self._counts.set_device(MULTIPROCESSORS, L2_BYTES)
        self.calls: list[Call] = []

    def watch_races(self, watch: bool) -> None:
        """Whether two blocks that touch the same memory in no order are an error."""
        self._counts.watch_races(watch)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kernel = getattr(self._kernels, name)
        function = name.removesuffix("_cuda")

        def called(*given: Any) -> Any:
            named = zip(arguments()[function], given, strict=False)
            tensors = {label: value for label, value in named if isinstance(value, Tensor)}
            streamed = STREAMED.get(function, ())
            listed = [(label, *_extent(tensor), label in streamed) for label, tensor in tensors.items()]
            self._counts.begin(listed, L2_BYTES)
            result = kernel(*given)
            call = Call(function)
            for kernel_name, tensor, kind, tally in self._counts.accesses():
                call.accesses.append(Access(_short(kernel_name), tensor, kind, **tally))
            for tensor, read, written in self._counts.memory_traffic():
                call.read[tensor], call.written[tensor] = read, written
            if call.accesses:
                self.calls.append(call)
            return result

        return called

    def take(self) -> list[Call]:
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


@contextmanager
def counting(path: Path) -> Iterator[Counter]:
    """Let the backend cuda of hdgan.ops use the kernels of the build at `path`, on CPU tensors."""
    counter = Counter(path)
    with pytest.MonkeyPatch.context() as patch:
        on_host(patch, "cuda")
        take_kernels(patch, "cuda", counter)
        yield counter


def build_counted(folder: Path) -> Path:
    return build_extension(folder, COUNTED)


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hdgan_counted.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _extent(tensor: Tensor) -> tuple[int, int, int]:
    """Address and bytes of what a tensor spans, and bytes of an element."""
    if tensor.numel() == 0:
        return tensor.data_ptr(), 0, tensor.element_size()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (last + 1) * tensor.element_size(), tensor.element_size()


def _short(kernel: str) -> str:
    return re.sub(r"[(<].*", "", kernel.lstrip("("))


def total(accesses: Iterable[Access], kind: str) -> tuple[int, int]:
    """Sectors that were asked for, and different ones among them."""
    chosen = [access for access in accesses if access.kind == kind]
    return sum(access.sectors for access in chosen), sum(access.unique for access in chosen)
