"""Clocks, and the two ceilings of a device: how fast it copies, and how fast it multiplies matrices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

FLUSH_BYTES = 256 * 2**20
"""Written between rounds on a GPU, more than its caches hold, so that each round reads its inputs from memory."""
FEWEST_ROUNDS, MOST_ROUNDS = 5, 500
SLOW, SLOW_ROUNDS = 1.0, 3
"""Calls that take longer than a second are repeated less."""
LONGEST_HEAD_START = 0.01
"""Seconds. What takes longer to queue is a network, whose user waits for the CPU as well."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over all rounds."""

    median: float
    q20: float
    q80: float
    rounds: int

    @staticmethod
    def of(seconds: list[float]) -> Timing:
        quantiles = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.5, 0.2, 0.8]).double())
        median, q20, q80 = quantiles.tolist()
        return Timing(median, q20, q80, len(seconds))

    def divided(self, by: int) -> Timing:
        return Timing(self.median / by, self.q20 / by, self.q80 / by, self.rounds)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 in float32, without TF32, and let cuDNN choose fast convolutions; afterwards restore both."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


def measure(call: Callable[[], object], device: torch.device, seconds: float) -> Timing:
    """Time a call after two warm-ups, for about so many seconds, but at least a few times."""
    clock = _time_on_gpu if device.type == "cuda" else _time_on_cpu
    call()
    once = clock(call, 1)[0]
    fewest = SLOW_ROUNDS if once > SLOW else FEWEST_ROUNDS
    rounds = min(max(int(seconds / max(once, 1e-6)), fewest), MOST_ROUNDS)
    return Timing.of(clock(call, rounds))


def _time_on_cpu(call: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
        del result
    return times


def _time_on_gpu(call: Callable[[], object], rounds: int) -> list[float]:
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(rounds)] for _ in range(2))
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    writes = 1 + _head_start(call, flush)
    for start, end in zip(starts, ends, strict=True):
        for _ in range(writes):
            flush.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in zip(starts, ends, strict=True)]


def _head_start(call: Callable[[], object], flush: torch.Tensor) -> int:
    """How often the GPU writes `flush` while the CPU queues a call: kernels of ops are shorter than their launches.

    0 for a network, which takes the CPU longer to queue than the longest head start.
    """
    torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    seconds = 1.5 * (time.perf_counter() - began)
    if seconds > LONGEST_HEAD_START:
        return 0
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        flush.zero_()
    torch.cuda.synchronize()
    return math.ceil(seconds / (time.perf_counter() - began) * 10)


@cache
def copy_ceiling(device: torch.device) -> float:
    """Bytes per second of a large copy, in the fast fifth of its rounds, which other programs disturb least."""
    count = 2**28 if device.type == "cuda" else 2**25
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure(lambda: target.copy_(source), device, 1.0).q20


@cache
def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, in the fast fifth of its rounds."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with exact_float32():
        return 2 * size**3 / measure(lambda: a @ b, device, 1.0).q20
