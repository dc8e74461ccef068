"""l1_distance: the largest feature of the discriminator that feature matching compares."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, differentiable
from hdgan.benchmarks.shapes import SIZES
from hdgan.ops import l1_distance

CHANNELS = 64
"""Of the first layer of D, at half of its resolution."""


def setup(case: str, context: Context) -> Iterator[Trial]:
    height, width = SIZES[case]
    x = context.randn(1, CHANNELS, height // 2 + 1, width // 2 + 1)
    target = context.randn(*x.shape)

    def run(backend: str) -> Function:
        def distance(x: Tensor) -> Tensor:
            return l1_distance(x, target, backend=backend).view(1, 1, 1, 1)  # results are images here

        return distance

    # Forward reads both and writes a sign of one byte. Backward reads the signs and writes the gradient.
    forward = Cost(2 * x.nbytes + x.numel(), 3 * x.numel())
    backward = Cost(x.numel() + x.nbytes, x.numel())
    return differentiable(context, run, [x], forward, backward)


BENCHMARK = Benchmark("l1_distance", {"1024x512": "anywhere", "2048x1024": "gpu"}, setup)
