"""Compiles the Triton kernels for GPUs that are not there and prints, as JSON, what each compilation used.

Every launcher of hdgan.kernels is called with arguments as the ops pass them, on meta tensors; a driver that only
claims to have a GPU lets Triton derive signatures, specialisations and options as it would there, and launches become
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
from triton.backends.nvidia.compiler import get_ptxas
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
    """Makers of meta tensors, in two dtypes and two layouts; not all four pairs, for time."""
    for dtype, format in zip((torch.float32, torch.bfloat16), FORMATS, strict=True):
        yield lambda *shape, dtype=dtype, format=format: meta(*shape, dtype=dtype, format=format)


def avg_pyramid() -> Iterator[Call]:
    for make in images():
        x, half, quarter = make(1, 36, 512, 1024), make(1, 36, 256, 512), make(1, 36, 128, 256)
        yield "fwd", (x, half, quarter)
        yield "bwd", (half, quarter, x)


def instance_norm_act() -> Iterator[Call]:
    for make in images():
        for channels, height, width, pad in ((64, 512, 1024, 0), (1024, 32, 64, 1)):
            x, y = make(1, channels, height, width), make(1, channels, height + 2 * pad, width + 2 * pad)
            plane, scratch = meta(1, channels), meta(3 * (channels + 32768))
            affine = (None, None) if pad else (meta(channels), meta(channels))
            residual, dresidual = (y[:, :, 1:-1, 1:-1], x) if pad else (None, None)
            yield "fwd", (x, *affine, residual, y, plane, plane, scratch, 1, 0.0, 1e-5, pad, 0)
            saved = (plane, plane, x, dresidual, meta(2, 1, channels), scratch)
            yield "bwd", (y, x, *affine, *saved, 1, 0.0, pad, 0)


def encode_labels() -> Iterator[Call]:
    label, ids = meta(1, 512, 1024, dtype=torch.uint8), meta(1, 512, 1024, dtype=torch.int32)
    for make in images():
        yield "fwd", (label, ids, make(1, 36, 512, 1024), 255)
        yield "fwd", (label, None, make(1, 35, 512, 1024), 255)


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
        x, table = make(1, 3, 512, 1024), meta(50, 3)
        yield "reduce", (x, rows, offsets, table)
        yield "reduce_sorted", (x, meta(512 * 1024, dtype=torch.int64), starts, meta(4, 50, 3))
        yield "broadcast", (table, rows, counts, x)


CASES = {made.__name__: made for made in (avg_pyramid, instance_norm_act, encode_labels, instance_index, instance_mean)}


def resources(compiled: Any) -> dict[str, int]:
    """Registers, and bytes spilled from them."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, ptx = Path(folder) / "kernel.cubin", Path(folder) / "kernel.ptx"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = output_of(CUOBJDUMP, "-res-usage", cubin)
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
        assert found, usage
        registers, stack, local = map(int, found.groups())
        if stack + local == 0:
            return {"registers": registers, "spilled": 0}
        # The stack also keeps what is alive at calls, of divisions for one: only ptxas tells that from spills.
        ptx.write_text(compiled.asm["ptx"])
        target = re.search(r"^\.target (\w+)", compiled.asm["ptx"], re.MULTILINE)
        assert target
        ptxas = get_ptxas(compiled.metadata.target.arch).path
        report = output_of(ptxas, "-v", f"--gpu-name={target[1]}", ptx, "-o", cubin)
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", report)
        assert spills, report
        return {"registers": registers, "spilled": sum(map(int, spills))}


def output_of(*command: str | Path) -> str:
    return subprocess.check_output([str(part) for part in command], stderr=subprocess.STDOUT, text=True)


def main(stems: list[str]) -> None:
    kernels: list[str] = []
    rows: dict[str, dict[str, Any]] = {}

    def compile_instead(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        def compile_kernel(*arguments: Any, **options: Any) -> None:
            compiled = kernel.warmup(*arguments, grid=grid, **options)
            if compiled.hash not in rows:
                name = {"kernel": kernel.__name__, "arch": compiled.metadata.target.arch}
                rows[compiled.hash] = name | resources(compiled)

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
