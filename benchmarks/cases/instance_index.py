"""instance_index: numbering the instances of a map."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.cases.instance_mean import CASES, COUNTS
from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, differentiable
from hdgan.benchmarks.shapes import SIZES, instance_ids
from hdgan.ops import instance_index


def setup(case: str, context: Context) -> Iterator[Trial]:
    size, count = COUNTS[case]
    ids = instance_ids(*SIZES[size], count).to(context.device)

    def run(backend: str) -> Function:
        def index(ids: Tensor) -> tuple[Tensor, ...]:
            return instance_index(ids, backend=backend)

        return index

    # It reads the ids and writes rows of 32 bits.
    return differentiable(context, run, [ids], Cost(ids.nbytes + 4 * ids.numel(), 0))


# The number of instances depends on the data, which torch.compile cannot trace.
BENCHMARK = Benchmark(
    "instance_index", CASES, setup, ("eager", "cpu", "cuda", "triton"), layouts=False, dtypes=False, clock="call"
)
