"""Compiles for sm_90 what networks spend their time on, in bfloat16, and prints how wide its global accesses are.

As JSON, one row for each compilation: the variant, the kernel, registers, bytes spilled, and how many loads and stores
of how many bytes its PTX has. Run as `python -m tests.kernels.hot_variants`, without TRITON_INTERPRET.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
from triton.runtime.jit import JITFunction

from hdgan.kernels import common
from tests.kernels.compile_aot import PROCESSORS, AbsentGpu, resources

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
NORMS = {  # shape, pad, whether there is a residual
    "last up": ((1, 32, 1024, 2048), 3, False),
    "stem": ((1, 64, 512, 1024), 0, False),
    "residual": ((1, 64, 512, 1024), 1, True),
    "odd planes": ((1, 128, 257, 513), 0, False),
}


def empty(*shape: int, dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", **options)


def variants() -> Iterator[tuple[str, str, str, tuple[Any, ...]]]:
    """Names, stems, launchers and their arguments."""
    for layout, format in FORMATS.items():

        def image(*shape: int, format: torch.memory_format = format) -> torch.Tensor:
            return empty(*shape, dtype=torch.bfloat16, memory_format=format)

        for name, ((batch, channels, height, width), pad, has_residual) in NORMS.items():
            x, y = image(batch, channels, height, width), image(batch, channels, height + 2 * pad, width + 2 * pad)
            mean, sums, scratch = empty(batch, channels), empty(2, batch, channels), empty(2**22)
            residual = x if has_residual else None
            tensors = x, None, None, residual, y, mean, mean, scratch
            yield f"{name} {layout}", "instance_norm_act", "fwd", (*tensors, 0.0, 1e-5, pad, "reflect")
            tensors = y, x, None, None, mean, mean, x, residual, sums, scratch
            yield f"{name} {layout}", "instance_norm_act", "bwd", (*tensors, 0.0, pad, "reflect")
        for channels in (39, 3):
            levels = [image(1, channels, 1024 >> k, 2048 >> k) for k in range(3)]
            yield f"{channels} channels {layout}", "avg_pyramid", "fwd", (*levels,)
            yield f"{channels} channels {layout}", "avg_pyramid", "bwd", (levels[1], levels[2], levels[0])
        label, ids = (empty(1, 1024, 2048, dtype=dtype) for dtype in (torch.uint8, torch.int32))
        for channels in (36, 35):
            planes = label, ids if channels == 36 else None, image(1, channels, 1024, 2048), 255
            yield f"{channels} channels {layout}", "encode_labels", "fwd", planes


def accesses(ptx: str, kind: str) -> dict[int, int]:
    """Bytes of one thread's access -> how many instructions there are, of loads ("ld") or stores ("st")."""
    found = re.findall(rf"\b{kind}\.global(?:\.[a-zA-Z]\w*(?:::\w+)?)*?(?:\.v(\d))?\.b(\d+)", ptx)
    return dict(Counter(int(count or 1) * int(bits) // 8 for count, bits in found))


def recording(rows: list[dict[str, Any]], name: str) -> Callable[..., Any]:
    """What launches become: compilations of a variant that add their rows."""

    def compile_instead(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        def compile_kernel(*arguments: Any, **options: Any) -> None:
            compiled = kernel.warmup(*arguments, grid=grid, **options)
            widths = {kind: accesses(compiled.asm["ptx"], kind) for kind in ("ld", "st")}
            rows.append({"variant": name, "kernel": kernel.__name__} | widths | resources(compiled))

        return compile_kernel

    return compile_instead


def main() -> None:
    rows: list[dict[str, Any]] = []
    triton.runtime.driver.set_active(AbsentGpu(90))
    common.processors = lambda x: PROCESSORS
    for name, stem, launcher, inputs in variants():
        JITFunction.__getitem__ = recording(rows, name)
        getattr(importlib.import_module(f"hdgan.kernels.{stem}"), f"{stem}_{launcher}")(*inputs)
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
