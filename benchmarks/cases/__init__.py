"""What is measured: one file for each op, for the networks, and for each part of a user's day."""

from hdgan.benchmarks.cases import (
    avg_pyramid,
    data_loading,
    encode_labels,
    instance_index,
    instance_mean,
    instance_norm_act,
    networks,
    residual_block,
    startup,
    step,
)
from hdgan.benchmarks.runner import Benchmark

ALL = (
    instance_norm_act.BENCHMARK,
    instance_mean.BENCHMARK,
    instance_index.BENCHMARK,
    avg_pyramid.BENCHMARK,
    encode_labels.BENCHMARK,
    residual_block.BENCHMARK,
    *networks.BENCHMARKS,
    step.BENCHMARK,
    data_loading.BENCHMARK,
    startup.BENCHMARK,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in ALL}
