"""avg_pyramid: the pyramid of D's input at its three scales."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, differentiable
from hdgan.benchmarks.shapes import CONDITION_AND_IMAGE, SIZES
from hdgan.ops import avg_pyramid

LEVELS = 2
WINDOW = 9
"""Additions and one multiplication for each output."""


def setup(case: str, context: Context) -> Iterator[Trial]:
    x = context.randn(1, CONDITION_AND_IMAGE, *SIZES[case])

    def run(backend: str) -> Function:
        def levels(x: Tensor) -> list[Tensor]:
            return avg_pyramid(x, LEVELS, backend=backend)[1:]

        return levels

    return differentiable(context, run, [x], *cost(tuple(x.shape), x.element_size()))


def cost(shape: tuple[int, ...], element: int) -> tuple[Cost, Cost]:
    """Forward reads x and writes the levels; backward does the opposite."""
    batch, channels, height, width = shape
    sizes = [height * width]
    for _ in range(LEVELS):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append(height * width)
    one_way = Cost(batch * channels * sum(sizes) * element, batch * channels * sum(sizes[1:]) * WINDOW)
    return one_way, one_way


BENCHMARK = Benchmark("avg_pyramid", {"1024x512": "anywhere", "2048x1024": "gpu"}, setup)
