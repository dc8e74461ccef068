"""label_conv2d: the first convolutions of the networks on a street scene, and on noise, the worst case.

The kernels start from the integer maps. The dense convolutions of PyTorch get their planes ready-made, at no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, differentiable
from hdgan.benchmarks.shapes import CONDITION, N_LABELS, SIZES, scene_maps
from hdgan.ops import avg_pyramid, encode_labels, label_conv2d, pad2d
from hdgan.ops.instance_norm_act import PadMode


class Case(NamedTuple):
    """A first convolution; `size` is that of the maps."""

    size: str
    channels: int
    side: int = 7
    stride: int = 1
    padding: int = 3
    pad_mode: PadMode = "reflect"
    levels: int = 0
    noise: bool = False


CASES = {
    "G1, 1024x512": Case("1024x512", 64),
    "G1 in G2, 2048x1024": Case("2048x1024", 64, levels=1),
    "G2, 2048x1024": Case("2048x1024", 32),
    "D, 2048x1024": Case("2048x1024", 64, 4, 2, 2, "zero"),
    "D on the half, 2048x1024": Case("2048x1024", 64, 4, 2, 2, "zero", levels=1),
    "G1, 1024x512, noise": Case("1024x512", 64, noise=True),
    "G1 in G2, 2048x1024, noise": Case("2048x1024", 64, levels=1, noise=True),
}


def setup(name: str, context: Context) -> Iterator[Trial]:
    case = CASES[name]
    label, ids = (x.to(context.device) for x in _maps(case))
    weight = context.randn(case.channels, CONDITION, case.side, case.side).requires_grad_()
    wide = weight.detach().float().contiguous().requires_grad_()

    def dense(weight: Tensor) -> Function:
        format = context.memory_format
        planes = encode_labels(label, ids, N_LABELS, dtype=weight.dtype, memory_format=format, backend="eager")
        planes = avg_pyramid(planes, case.levels, backend="eager")[-1]
        return lambda *_: F.conv2d(pad2d(planes, case.padding, case.pad_mode), weight, stride=case.stride)

    def run(implementation: str) -> Function:
        if implementation == "eager":
            return dense(weight)
        return lambda label, ids: label_conv2d(
            label,
            ids,
            weight,
            stride=case.stride,
            padding=case.padding,
            pad_mode=case.pad_mode,
            levels=case.levels,
            backend=implementation,
        )

    pixels = label.numel() // (4**case.levels * case.stride**2)
    result = pixels * case.channels * context.dtype.itemsize
    cost = Cost(label.nbytes + ids.nbytes + weight.nbytes + result, 0)
    return differentiable(
        context, run, [label, ids], cost, cost, parameters=[weight], truth=dense(wide), truth_parameters=[wide]
    )


def _maps(case: Case) -> tuple[Tensor, Tensor]:
    """A label map and an instance map, [1, H, W] each."""
    if not case.noise:
        return scene_maps(*SIZES[case.size])
    noise = torch.randint(N_LABELS, (2, 1, *SIZES[case.size]), generator=torch.Generator().manual_seed(0))
    return noise[0].to(torch.uint8), noise[1].int()


BENCHMARK = Benchmark("label_conv2d", {name: "gpu" if i else "anywhere" for i, name in enumerate(CASES)}, setup)
