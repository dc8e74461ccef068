"""instance_norm_act: layers of G1, G2, D and E."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, Where, differentiable
from hdgan.benchmarks.shapes import LARGE_NORM_CASES, NORM_CASES, NormCase
from hdgan.ops import instance_norm_act

CASES = NORM_CASES | LARGE_NORM_CASES
SMALL = ("G1 down 2", "G1 block, first norm", "G1 block, second norm", "D layer 1", "E last up")
WHERE: dict[str, Where] = {name: "anywhere" if name in SMALL else "gpu" for name in CASES}


def setup(name: str, context: Context) -> Iterator[Trial]:
    case = CASES[name]
    x = context.randn(1, case.channels, case.height, case.width)
    residual = [context.randn(1, case.channels, case.height + 2, case.width + 2)] if case.residual else []

    def run(backend: str) -> Function:
        def norm(x: Tensor, *padded: Tensor) -> Tensor:
            residual = padded[0] if padded else None
            return instance_norm_act(x, residual=residual, activation=case.activation, pad=case.pad, backend=backend)

        return norm

    return differentiable(context, run, [x, *residual], *cost(case, context.dtype))


def cost(case: NormCase, dtype: torch.dtype) -> tuple[Cost, Cost]:
    """Forward reads x and the residual and writes y; backward reads dy and x and writes dx and the residual's gradient.

    An element takes forward 6 operations for statistics and normalising, 1 to activate and 1 to add; backward 9 (the
    normalised value, two sums, dx), 1 for the activation's mask.
    """
    pixels = case.channels * case.height * case.width
    padded = case.channels * (case.height + 2 * case.pad) * (case.width + 2 * case.pad)
    residual, active = int(case.residual), int(case.activation != "none")
    forward = Cost((pixels * (1 + residual) + padded) * dtype.itemsize, pixels * (6 + active + residual))
    backward = Cost((pixels * (2 + residual) + padded) * dtype.itemsize, pixels * (9 + active))
    return forward, backward


BENCHMARK = Benchmark("instance_norm_act", WHERE, setup)
