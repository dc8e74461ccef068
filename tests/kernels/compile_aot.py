"""Compiles the Triton kernels for GPUs that are not there and prints, as JSON, what each compilation used.

Every launcher of hdgan.kernels is called with arguments as the ops pass them, on meta tensors; a driver that only claims
to have a GPU lets Triton derive signatures, specialisations and options as it would there, and launches become
compilations. Run as `python -m tests.kernels.compile_aot <stem>...`, without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from hdgan.kernels import common

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ARCHS = (80, 90, 100, 120)
PROCESSORS = 132
FORMATS = (torch.contiguous_format, torch.channels_last)
Call = tuple[str, tuple[Any, ...]]


class AbsentGpu:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return int(self.target.arch)  # by which Triton keeps what it has compiled

    def get_current_stream(self, device: int) -> int:
        return 0


def meta(*shape: int, dtype: torch.dtype = torch.float32, format: torch.memory_format = FORMATS[0]) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=format)


def images() -> Iterator[Callable[..., torch.Tensor]]:
    """Makers of meta tensors, in the layouts and dtypes of interest."""
    for dtype in (torch.float32, torch.bfloat16):
        for format in FORMATS:
            yield lambda *shape, dtype=dtype, format=format: meta(*shape, dtype=dtype, format=format)


def avg_pyramid() -> Iterator[Call]:
    for make in images():
        x, half, quarter = make(1, 36, 512, 1024), make(1, 36, 256, 512), make(1, 36, 128, 256)
        for level in (quarter, None):
            yield "fwd", (x, half, level)
            yield "bwd", (half, level, x)


def instance_norm_act() -> Iterator[Call]:
    for make in images():
        for channels, height, width in ((64, 512, 1024), (1024, 32, 64)):
            x, y, plane = make(1, channels, height, width), make(1, channels, height + 2, width + 2), meta(1, channels)
            scratch, affine = meta(3 * (channels + 32768)), (meta(channels), meta(channels))
            for extra, residual, result, activation, pad, mode in (
                ((None, None), None, x, 1, 0, 0),
                (affine, x, x, 2, 0, 1),
                ((None, None), y[:, :, 1:-1, 1:-1], y, 0, 1, 0),
            ):
                arguments = (activation, 0.2, 1e-5, pad, mode)
                yield "fwd", (x, *extra, residual, result, plane, plane, scratch, *arguments)
                dresidual = None if residual is None else x
                saved = (plane, plane, x, dresidual, meta(2, 1, channels), scratch)
                yield "bwd", (result, x, *extra, *saved, activation, 0.2, pad, mode)


def encode_labels() -> Iterator[Call]:
    for dtype in (torch.uint8, torch.int32, torch.int64):
        label = meta(1, 512, 1024, dtype=dtype)
        for ids in (meta(1, 512, 1024, dtype=torch.int32), None):
            for make in images():
                yield "fwd", (label, ids, make(1, 35 + (ids is not None), 512, 1024), 255)


def instance_index() -> Iterator[Call]:
    for dtype in (torch.int32, torch.int64):
        tables = (meta(1, 32768, dtype=torch.int32), meta(1, 32768, dtype=torch.int32), meta(2, dtype=torch.int32))
        rows = meta(1, 512, 1024, dtype=torch.int32)
        lists = (meta(2, dtype=torch.int64), meta(32768, dtype=dtype), meta(32768, dtype=torch.int64))
        yield "fwd", (meta(1, 512, 1024, dtype=dtype), rows, *lists, *tables, 0)


def instance_mean() -> Iterator[Call]:
    rows, offsets = meta(1, 512, 1024, dtype=torch.int32), meta(2, dtype=torch.int64)
    counts, starts = meta(50, dtype=torch.int64), meta(51, dtype=torch.int64)
    for make in images():
        for channels in (3, 64):
            x, table = make(1, channels, 512, 1024), meta(50, channels)
            yield "reduce", (x, rows, offsets, table)
            yield "reduce_sorted", (x, meta(512 * 1024, dtype=torch.int64), starts, meta(4, 50, channels))
            yield "broadcast", (table, rows, counts, x)
            yield "broadcast", (table, rows, None, x)


CASES = {made.__name__: made for made in (avg_pyramid, instance_norm_act, encode_labels, instance_index, instance_mean)}


def resources(cubin: bytes) -> dict[str, int]:
    """Registers, and bytes of stack and local memory: what does not fit into registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        done = subprocess.run([CUOBJDUMP, "-res-usage", file.name], check=True, capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", done.stdout)
    assert found, done.stdout
    return dict(zip(("registers", "stack", "shared", "local"), map(int, found.groups()), strict=True))


def main(stems: list[str]) -> None:
    kernels: list[str] = []
    rows: dict[str, dict[str, Any]] = {}

    def compile_instead(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        def compile_kernel(*arguments: Any, **options: Any) -> None:
            compiled = kernel.warmup(*arguments, grid=grid, **options)
            if compiled.hash not in rows:
                name = {"kernel": kernel.__name__, "arch": compiled.metadata.target.arch}
                rows[compiled.hash] = name | resources(compiled.asm["cubin"])

        return compile_kernel

    JITFunction.__getitem__ = compile_instead
    common.processors = lambda x: PROCESSORS
    for stem in stems:
        module = importlib.import_module(f"hdgan.kernels.{stem}")
        kernels += [name for name in vars(module) if name.endswith("_kernel")]
        for arch in ARCHS:
            triton.runtime.driver.set_active(AbsentGpu(arch))
            for launcher, arguments in CASES[stem]():
                getattr(module, f"{stem}_{launcher}")(*arguments)
    json.dump({"kernels": kernels, "compiled": list(rows.values())}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
