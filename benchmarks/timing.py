"""Clocks, and the two ceilings of a device: how fast it copies, and how fast it multiplies matrices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

FLUSH_BYTES = 256 * 2**20
"""Read between rounds on a GPU, more than its caches hold, so that each round reads its inputs from memory."""
FEWEST_ROUNDS, MOST_ROUNDS = 5, 500
SLOW, SLOW_ROUNDS = 1.0, 3
"""Calls that take longer than a second are repeated less."""
LAUNCHES = 3
"""Calls whose launch is timed."""
HEAD_START = 1.5
"""How much longer a GPU is kept busy than the launch of a call takes."""

Clock = Literal["kernels", "call"]
"""What is timed on a GPU: the kernels of a call, which are all queued before the first one starts, or the call as its
user sees it, from an idle GPU on, which includes the launches that the CPU is late with. A CPU knows no difference."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over all rounds."""

    median: float
    q20: float
    q80: float
    rounds: int
    launch: float | None = None
    """Seconds that the CPU takes to queue a call for an idle GPU; None on a CPU."""

    @staticmethod
    def of(seconds: list[float]) -> Timing:
        quantiles = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.5, 0.2, 0.8]).double())
        median, q20, q80 = quantiles.tolist()
        return Timing(median, q20, q80, len(seconds))

    def divided(self, by: int) -> Timing:
        launch = None if self.launch is None else self.launch / by
        return Timing(self.median / by, self.q20 / by, self.q80 / by, self.rounds, launch)


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


def measure(call: Callable[[], object], device: torch.device, seconds: float, clock: Clock = "kernels") -> Timing:
    """Time a call after warming up, for about so many seconds, but at least a few times."""
    call()
    if device.type == "cuda":
        return _measure_on_gpu(call, seconds, clock, _Flush(device))
    return Timing.of(_time_on_cpu(call, _rounds(_time_on_cpu(call, 1)[0], seconds)))


def _rounds(once: float, seconds: float) -> int:
    fewest = SLOW_ROUNDS if once > SLOW else FEWEST_ROUNDS
    return min(max(int(seconds / max(once, 1e-6)), fewest), MOST_ROUNDS)


def _time_on_cpu(call: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
        del result
    return times


class _Flush:
    """A buffer that a GPU reads between rounds.

    Reading alone leaves no modified lines in the cache, which the timed kernels would have to write back.
    """

    def __init__(self, device: torch.device) -> None:
        self._buffer = torch.zeros(FLUSH_BYTES // 4, device=device)
        self._sum = torch.zeros((), device=device)

    def read(self, times: int) -> None:
        for _ in range(times):
            torch.sum(self._buffer, dim=0, out=self._sum)

    def reads_for(self, seconds: float) -> int:
        """How many reads keep the GPU busy for so long."""
        self.read(1)
        torch.cuda.synchronize()
        began = time.perf_counter()
        self.read(10)
        torch.cuda.synchronize()
        return math.ceil(seconds / (time.perf_counter() - began) * 10)


def _measure_on_gpu(call: Callable[[], object], seconds: float, clock: Clock, flush: _Flush) -> Timing:
    launch = _launch_seconds(call)
    reads = max(flush.reads_for(HEAD_START * launch), 1) if clock == "kernels" else 1
    once = _time_on_gpu(call, 1, clock, flush, reads)[0]
    return replace(Timing.of(_time_on_gpu(call, _rounds(once, seconds), clock, flush, reads)), launch=launch)


def _launch_seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(LAUNCHES):
        torch.cuda.synchronize()
        times += _time_on_cpu(call, 1)
    return sorted(times)[LAUNCHES // 2]


def _time_on_gpu(call: Callable[[], object], rounds: int, clock: Clock, flush: _Flush, reads: int) -> list[float]:
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(rounds)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        flush.read(reads)
        if clock == "call":
            torch.cuda.synchronize()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in zip(starts, ends, strict=True)]


@cache
def copy_ceiling(device: torch.device, size: int | None = None) -> float:
    """Bytes per second of a copy, in the fast fifth of its rounds, which other programs disturb least.

    Args:
        device: where to copy.
        size: bytes that are read and written together; None for a copy that is large enough for the best rate, which
            larger ones are limited to as well. On a CPU, small copies stay in the caches.
    """
    largest = 2**31 if device.type == "cuda" else 2**28
    source = torch.randn(max(min(size or largest, largest) // 8, 1), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure(lambda: target.copy_(source), device, 1.0 if size is None else 0.1).q20


@cache
def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, in the fast fifth of its rounds."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with exact_float32():
        return 2 * size**3 / measure(lambda: a @ b, device, 1.0).q20
