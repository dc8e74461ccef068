"""A residual block of G1 and of G2, with its gradient."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hdgan.benchmarks.cases.networks import DEPTH_SLACK, on_backend
from hdgan.benchmarks.plain import plain, wide_copy
from hdgan.benchmarks.runner import Benchmark, Context, Cost, Function, Trial, Where, bytes_of, differentiable
from hdgan.models.blocks import ResidualBlock
from hdgan.ops import pad2d

BLOCKS = {"G1, 512x256, ngf 32": (512, 16, 32), "G1, 1024x512": (1024, 32, 64), "G2, 2048x1024": (64, 512, 1024)}
WHERE: dict[str, Where] = {name: "gpu" if i else "anywhere" for i, name in enumerate(BLOCKS)}


def setup(case: str, context: Context) -> Iterator[Trial]:
    channels, height, width = BLOCKS[case]
    block = ResidualBlock(channels, "reflect")
    block.to(context.device, context.dtype, memory_format=context.memory_format)  # type: ignore[call-overload]
    x = context.randn(1, channels, height, width)

    def weights(of: ResidualBlock) -> list[Tensor]:
        return [of.conv1.weight, of.conv2.weight]

    def run(implementation: str) -> Function:
        if implementation == "eager":
            return plain(block)
        return on_backend(implementation, lambda x: block(pad2d(x, 1, "reflect"), pad=0))

    true = wide_copy(block)
    assert isinstance(true, ResidualBlock)
    macs = 2 * 9 * channels * channels * height * width
    forward = Cost(2 * x.nbytes + bytes_of(weights(block)), 2 * macs)
    backward = Cost(3 * x.nbytes + 2 * bytes_of(weights(block)), 4 * macs)
    return differentiable(
        context, run, [x], forward, backward, parameters=weights(block), truth=plain(true),
        truth_parameters=weights(true), slack=DEPTH_SLACK,
    )  # fmt: skip


BENCHMARK = Benchmark("residual_block", WHERE, setup)
