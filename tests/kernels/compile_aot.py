"""Compiles the Triton kernels for GPUs that are not there and prints, as JSON, what each compilation used.

Every launcher of hdgan.kernels is called on meta tensors with arguments as the op passes them, which `launches` in the
op's tests makes. A driver that only claims to have a GPU lets Triton derive signatures, specialisations and options as
it would there, and launches become compilations. Run as `python -m tests.kernels.compile_aot <stem>...`, without
TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime.jit import JITFunction

from hdgan.kernels import common
from hdgan.ops._backend import OLDEST_TRITON

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ARCHS = (80, 90, 100, 120)
OLDEST = 10 * OLDEST_TRITON[0] + OLDEST_TRITON[1]
"""For this one kernels have to compile; how well does not matter."""
PROCESSORS = 132
FORMATS = (torch.contiguous_format, torch.channels_last)


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


def images() -> Iterator[Callable[..., torch.Tensor]]:
    """Makers of meta tensors, in two dtypes and two layouts; not all four pairs, for time."""
    for dtype, format in zip((torch.float32, torch.bfloat16), FORMATS, strict=True):
        yield partial(torch.empty, dtype=dtype, device="meta", memory_format=format)


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
                used = {} if name["arch"] == OLDEST else resources(compiled)
                rows[compiled.hash] = name | used

        return compile_kernel

    JITFunction.__getitem__ = compile_instead
    common.processors = lambda x: PROCESSORS
    for stem in stems:
        module = importlib.import_module(f"hdgan.kernels.{stem}")
        launches = importlib.import_module(f"tests.ops.test_{stem}").launches
        kernels += [name for name in vars(module) if name.endswith("_kernel")]
        for arch in (OLDEST, *ARCHS):
            triton.runtime.driver.set_active(AbsentGpu(arch))
            for make in images():
                for launcher, arguments in launches(make):
                    getattr(module, f"{stem}_{launcher}")(*arguments)
    json.dump({"kernels": kernels, "compiled": list(rows.values())}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
