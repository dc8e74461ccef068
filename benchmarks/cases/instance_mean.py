"""instance_mean: E's features averaged over the instances of a map, with a given index."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.runner import OF_OPS, Benchmark, Context, Cost, Function, Trial, Where, differentiable
from hdgan.benchmarks.shapes import FEATURES, SIZES, instance_ids
from hdgan.ops import InstanceIndex, instance_index, instance_mean

COUNTS: dict[str, tuple[str, int]] = {
    "1024x512, 60 instances": ("1024x512", 60),
    "2048x1024, 60 instances": ("2048x1024", 60),
    "2048x1024, 2000 instances": ("2048x1024", 2000),
}
CASES: dict[str, Where] = {name: "anywhere" if name.startswith("1024") else "gpu" for name in COUNTS}


def setup(case: str, context: Context) -> Iterator[Trial]:
    size, count = COUNTS[case]
    ids = instance_ids(*SIZES[size], count).to(context.device)
    index = instance_index(ids, backend="eager")
    x = context.randn(1, FEATURES, *SIZES[size])

    def run(implementation: str) -> Function:
        if implementation == "scatter":
            return lambda x: scatter_mean(x, index)
        return lambda x: instance_mean(x, index, backend=implementation)

    # It reads x and the rows of its pixels and writes y, with an addition and a multiplication for each element.
    cost = Cost(2 * x.nbytes + index.rows.nbytes, 2 * x.numel())
    return differentiable(context, run, [x], cost, cost)


def scatter_mean(x: Tensor, index: InstanceIndex) -> Tensor:
    """The same with torch.scatter_reduce and torch.gather, as one would write it without this library."""
    pixels = x.float().transpose(0, 1).flatten(1)  # [C, B*H*W]
    rows = index.rows.flatten().long().expand_as(pixels)
    table = pixels.new_zeros(len(pixels), len(index.counts))
    means = table.scatter_reduce(1, rows, pixels, "mean", include_self=False)  # [C, N]
    batch, channels, height, width = x.shape
    return means.gather(1, rows).view(channels, batch, height, width).transpose(0, 1).to(x.dtype)


BENCHMARK = Benchmark("instance_mean", CASES, setup, implementations=(*OF_OPS, "scatter"))
