"""encode_labels: one-hot classes and boundaries, in the dtype and memory format of the networks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, differentiable
from hdgan.benchmarks.shapes import CONDITION, N_LABELS, SIZES, instance_ids, label_map
from hdgan.ops import encode_labels


def setup(case: str, context: Context) -> Iterator[Trial]:
    ids = instance_ids(*SIZES[case], 60).to(context.device)
    label = label_map(ids)

    def run(backend: str) -> Function:
        def encode(label: Tensor, ids: Tensor) -> Tensor:
            return encode_labels(
                label, ids, N_LABELS, dtype=context.dtype, memory_format=context.memory_format, backend=backend
            )

        return encode

    planes = label.numel() * CONDITION * context.dtype.itemsize
    return differentiable(context, run, [label, ids], Cost(label.nbytes + ids.nbytes + planes, 0))


BENCHMARK = Benchmark("encode_labels", {"1024x512": "anywhere", "2048x1024": "gpu"}, setup)
