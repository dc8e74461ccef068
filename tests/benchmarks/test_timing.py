"""Clocks: what a GPU does before and between rounds, by a stand-in for it, and the ceilings of a CPU."""

from __future__ import annotations

import pytest
import torch

from hdgan.benchmarks import runner, timing
from hdgan.benchmarks.cases import BENCHMARKS
from hdgan.benchmarks.timing import Clock, Timing, copy_ceiling, measure

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Gpu:
    """Notes what it is asked to do; its buffer takes 40 µs to read, and an event is the number of its record."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                gpu.done.append("event")

            def elapsed_time(self, end: Event) -> float:
                return 2.0

        class Flush:
            def __init__(self, device: torch.device) -> None:
                assert device == CUDA

            def read(self, times: int) -> None:
                gpu.done.append(f"read {times}")

            def reads_for(self, seconds: float) -> int:
                return round(seconds / 40e-6)

        monkeypatch.setattr(timing, "_Flush", Flush)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: gpu.done.append("wait"))

    def call(self) -> None:
        self.done.append("call")

    def rounds(self) -> list[tuple[str, ...]]:
        """What happens from one flush to the next, in the rounds that are measured."""
        starts = [at for at, what in enumerate(self.done) if what.startswith("read")]
        found = [tuple(self.done[a:b]) for a, b in zip(starts, [*starts[1:], -1], strict=True)]
        return found[1:]  # without the one that finds the number of rounds


@pytest.mark.parametrize("launch", [60e-6, 60e-3])
@pytest.mark.parametrize(
    ("clock", "between"),
    [("kernels", ("event", "call", "event")), ("call", ("wait", "event", "call", "event"))],
)
def test_a_clock_does_the_same_however_long_a_launch_takes(
    monkeypatch: pytest.MonkeyPatch, launch: float, clock: Clock, between: tuple[str, ...]
) -> None:
    gpu = Gpu(monkeypatch)
    monkeypatch.setattr(timing, "_launch_seconds", lambda call: launch)
    found = measure(gpu.call, CUDA, 0.02, clock)
    assert (found.median, found.rounds, found.launch) == (2e-3, 10, launch)
    reads = round(timing.HEAD_START * launch / 40e-6) if clock == "kernels" else 1
    assert gpu.rounds() == [(f"read {reads}", *between)] * 10


def test_a_launch_begins_on_an_idle_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    assert timing._launch_seconds(gpu.call) > 0
    assert gpu.done == ["wait", "call"] * timing.LAUNCHES


def test_a_flush_reads_and_modifies_nothing() -> None:
    flush = timing._Flush(CPU)
    before = flush._buffer._version
    flush._buffer[0] = 3.0
    assert flush._buffer._version == before + 1
    flush.read(2)
    assert flush._buffer._version == before + 1
    assert flush._sum.item() == 3.0
    assert flush._buffer.nbytes == timing.FLUSH_BYTES


def test_a_cpu_has_one_clock() -> None:
    calls = []
    found = measure(lambda: calls.append(None), CPU, 1e-9, "call")
    assert found.rounds == timing.FEWEST_ROUNDS == len(calls) - 2
    assert found.launch is None
    assert found.q20 <= found.median <= found.q80


def test_a_timing_of_several_images_is_divided() -> None:
    assert Timing(4.0, 2.0, 8.0, 5, 1.0).divided(2) == Timing(2.0, 1.0, 4.0, 5, 0.5)
    assert Timing(4.0, 2.0, 8.0, 5).divided(2) == Timing(2.0, 1.0, 4.0, 5)


def test_a_copy_is_measured_at_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def measured(call: object, device: torch.device, seconds: float) -> Timing:
        sizes.append(call.__closure__[0].cell_contents.nbytes)  # type: ignore[attr-defined]
        return Timing(1.0, 0.5, 1.0, 5)

    monkeypatch.setattr(timing, "measure", measured)
    copy_ceiling.cache_clear()
    assert copy_ceiling(CPU, 8000) == 8000 / 0.5
    assert copy_ceiling(CPU) == copy_ceiling(CPU, 2**40) == 2**28 / 0.5
    assert sizes == [4000, 2**27, 2**27]
    copy_ceiling.cache_clear()


def test_what_is_timed_is_decided_by_the_benchmark() -> None:
    """Kernels of an op alone; what waits for the CPU by itself, or is made of hundreds of ops, as a call."""
    calls = {name for name, benchmark in BENCHMARKS.items() if benchmark.clock == "call"}
    assert calls == {"instance_index", "G1", "G2", "D", "E", "accelerate", "step", "preview", "generate"} | {
        "data_loading",
        "startup",
    }


def test_the_clock_of_a_benchmark_reaches_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = []

    def measured(call: object, device: torch.device, seconds: float, clock: Clock) -> Timing:
        clocks.append(clock)
        return Timing(1.0, 1.0, 1.0, 1)

    monkeypatch.setattr(runner, "measure", measured)
    trial = runner.Trial("cpu", "forward", list, list, runner.Cost(0, 0), 0.0)
    runner.run(trial, CPU, 1e-3, "call")
    assert clocks == ["call"]
