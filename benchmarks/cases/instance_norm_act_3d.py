"""hdgan.nn.InstanceNormAct3d: the norms and activations of nnU-Net. NHWC stands for channels_last_3d."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from hdgan.benchmarks.cases.instance_norm_act import cost
from hdgan.benchmarks.cases.networks import on_backend
from hdgan.benchmarks.runner import Benchmark, Context, Function, Trial, Where, differentiable
from hdgan.benchmarks.shapes import NormCase
from hdgan.nn import InstanceNormAct3d

CASES = {
    "nnU-Net, level 1": (2, 32, 128, 128, 128),
    "nnU-Net, level 2": (2, 64, 64, 64, 64),
    "nnU-Net, level 3": (2, 128, 32, 32, 32),
    "nnU-Net, level 5": (2, 320, 8, 8, 8),
}
"""Batch, channels, depth, height and width for patches of 128x128x128."""
SMALL = ("nnU-Net, level 3", "nnU-Net, level 5")
WHERE: dict[str, Where] = {name: "anywhere" if name in SMALL else "gpu" for name in CASES}


def setup(name: str, context: Context) -> Iterator[Trial]:
    batch, channels, depth, height, width = CASES[name]
    x = context.randn(batch, channels, depth, height, width)
    norm = nn.InstanceNorm3d(channels, affine=True, device=context.device)
    parameters = list(norm.parameters())  # in float32 for any x, as under autocast

    def run(implementation: str) -> Function:
        if implementation == "eager":
            return nn.Sequential(norm, nn.LeakyReLU(inplace=True))
        return on_backend(implementation, InstanceNormAct3d.of(norm, "leaky_relu"))

    planes = NormCase(batch * channels, depth * height, width, "leaky_relu", 0)
    return differentiable(
        context, run, [x], *cost(planes, context.dtype), parameters=parameters, truth_parameters=parameters
    )


BENCHMARK = Benchmark("instance_norm_act_3d", WHERE, setup)
