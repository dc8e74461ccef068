from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hdgan.data import LoaderBatch
from hdgan.errors import DataError
from hdgan.families.common.batch import Batch
from hdgan.training import prefetch
from hdgan.training.prefetch import one_ahead, prefetched


class Counting:
    """Yields batches and counts those taken."""

    def __init__(self, count: int, pinned: bool = False) -> None:
        self.taken = 0
        generator = torch.Generator().manual_seed(0)
        self.batches: list[LoaderBatch] = []
        for i in range(count):
            label = torch.randint(4, (2, 32, 48), generator=generator, dtype=torch.uint8)
            ids = torch.randint(-(2**31), 2**31 - 1, (2, 32, 48), generator=generator, dtype=torch.int32)
            photo = torch.randint(256, (2, 3, 32, 48), generator=generator, dtype=torch.uint8)
            parts = {"label": label, "ids": ids, "photo": photo, "input": torch.rand(2, 5, 32, 48, generator=generator)}
            moved = {name: tensor.pin_memory() if pinned else tensor for name, tensor in parts.items()}
            self.batches.append(LoaderBatch(stem=[f"{i}"], **moved))

    def __iter__(self) -> Iterator[LoaderBatch]:
        for batch in self.batches:
            self.taken += 1
            yield batch


def assert_equal(inputs: Batch, expected: Batch) -> None:
    for name in ("photo", "label", "source", "ids"):
        one, other = getattr(inputs, name), getattr(expected, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_cpu_reads_nothing_ahead(memory_format):
    device, loader = torch.device("cpu"), Counting(4)
    for step, inputs in enumerate(prefetched(loader, device, memory_format)):
        assert loader.taken == step + 1
        assert_equal(inputs, Batch.from_loader(loader.batches[step], device, memory_format))
        assert inputs.photo.is_contiguous(memory_format=memory_format)
        assert inputs.source is not None
        assert inputs.source.is_contiguous(memory_format=memory_format)
    assert loader.taken == 4


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_batch_is_on_its_way_while_another_is_used(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: "stream")
    monkeypatch.setattr(prefetch, "_upload", lambda batch, *rest: (batch["stem"], rest[2]))
    monkeypatch.setattr(prefetch, "_arrived", lambda stem, event: stem)
    loader, seen = Counting(count), []
    for step, stem in enumerate(prefetched(loader, torch.device("cuda"))):
        assert loader.taken == min(step + 2, count)
        seen += stem
    assert seen == [str(i) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_loader_that_fails_loses_no_batch_before(monkeypatch, count):
    def failing() -> Iterator[LoaderBatch]:
        yield from Counting(count)
        raise DataError("bad image")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: "stream")
    monkeypatch.setattr(prefetch, "_upload", lambda batch, *rest: (batch["stem"], rest[2]))
    monkeypatch.setattr(prefetch, "_arrived", lambda stem, event: stem)
    batches = prefetched(failing(), torch.device("cuda"))
    assert [next(batches) for _ in range(count)] == [[str(i)] for i in range(count)]
    with pytest.raises(DataError, match="bad image"):
        next(batches)


def test_an_interrupt_is_not_kept_waiting():
    def interrupted() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(one_ahead(interrupted(), str))


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_batches_arrive_whole_on_a_gpu(memory_format, pinned):
    device, loader = torch.device("cuda"), Counting(12, pinned)
    results, instances = [], []
    for inputs in prefetched(loader, device, memory_format, lambda batch: batch.indexed(1)):
        assert inputs.photo.is_contiguous(memory_format=memory_format)
        torch.cuda._sleep(10_000_000)  # a long step: the next batches are queued while this one is still to be read
        results.append(Batch(*(part.clone() for part in (inputs.photo, inputs.label, inputs.source, inputs.ids))))
        instances.append([tuple(part.clone() for part in batch.instances()) for batch in inputs.split(1)])
        del inputs  # whose memory may not be given to a later batch before the copies above are done
    torch.cuda.synchronize()
    for result, indices, batch in zip(results, instances, loader.batches, strict=True):
        expected = Batch.from_loader(batch, device, memory_format)
        assert_equal(result, expected)
        for found, part in zip(indices, expected.split(1), strict=True):
            for one, other in zip(found, part.instances(), strict=True):
                assert torch.equal(one, other)
