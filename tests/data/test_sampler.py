from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import dataloader

from hdgan.data import DataConfig, PairedDataset, SizeConfig, StreamSampler, find_pairs, make_loader
from hdgan.data.streams import Stream
from hdgan.errors import ConfigError, DataError


def training_set(root: Path, size: SizeConfig | None = None) -> PairedDataset:
    data = DataConfig(root=root)
    return PairedDataset(find_pairs(data, "train").pairs, data, size or SizeConfig(crop_width=6), 4, train=True, seed=5)


def equal(one: dict, other: dict) -> bool:
    return one["stem"] == other["stem"] and all(torch.equal(one[part], other[part]) for part in one if part != "stem")


def test_every_epoch_shows_every_sample_once():
    keys = [key for batch in StreamSampler(7, stop=21, batch=3) for key in batch]
    assert [position for position, _ in keys] == list(range(21))
    epochs = [[index for _, index in keys[first : first + 7]] for first in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_run_on_across_epochs_and_are_full():
    sampler = StreamSampler(5, stop=9, batch=4)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3
    assert {len(batch) for batch in batches} == {4}
    shown = Counter(index for batch in batches for position, index in batch if position < 10)
    assert shown == dict.fromkeys(range(5), 2)


def test_dataset_smaller_than_a_batch():
    assert [index for _, index in next(iter(StreamSampler(2, stop=6, batch=6, shuffle=False)))] == [0, 1] * 3


@pytest.mark.parametrize("start", [0, 4, 12, 20])
def test_resume_continues_the_stream(start):
    whole = list(StreamSampler(7, stop=28, batch=4, seed=2))
    assert list(StreamSampler(7, start=start, stop=28, batch=4, seed=2)) == whole[start // 4 :]


def test_nothing_is_left_after_the_end():
    assert list(StreamSampler(7, start=28, stop=28)) == []
    assert len(StreamSampler(7, start=30, stop=28)) == 0


def test_ranks_together_equal_one_rank_with_the_global_batch():
    ranks = [StreamSampler(7, stop=24, batch=2, seed=1, rank=rank, world=3) for rank in range(3)]
    together = [[key for part in parts for key in part] for parts in zip(*ranks, strict=True)]
    assert together == list(StreamSampler(7, stop=24, batch=6, seed=1))


def test_order_depends_on_the_seed():
    assert list(StreamSampler(20, stop=20, seed=0)) != list(StreamSampler(20, stop=20, seed=1))


def test_order_and_geometry_draw_different_numbers(monkeypatch):
    """The first position of the first epochs would otherwise crop by the numbers that shuffle."""
    keys = []
    monkeypatch.setattr("hdgan.data.sampler.stream_rng", lambda *key: keys.append(key) or np.random.default_rng(0))
    list(StreamSampler(2, stop=4, seed=5))
    assert keys == [(Stream.ORDER, 5, 0), (Stream.ORDER, 5, 1)]


def test_wrong_rank():
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        StreamSampler(5, stop=5, rank=2, world=2)


def test_batch_stacks_every_part(nvidia):
    batch = next(iter(make_loader(training_set(nvidia), stop=3, batch=3)))
    assert len(batch["stem"]) == 3
    assert batch["label"].shape == batch["ids"].shape == (3, 6, 6)
    assert batch["photo"].shape == (3, 3, 6, 6)


def test_workers_change_nothing(nvidia):
    data = training_set(nvidia)
    alone, parallel = (list(make_loader(data, stop=12, batch=2, workers=workers)) for workers in (0, 2))
    assert len(alone) == len(parallel) == 6
    assert all(equal(one, other) for one, other in zip(alone, parallel, strict=True))


def test_spawned_workers_change_nothing(nvidia):
    data = training_set(nvidia)
    alone = list(make_loader(data, stop=4, batch=2))
    spawned = list(make_loader(data, stop=4, batch=2, workers=1, multiprocessing_context="spawn"))
    assert all(equal(one, other) for one, other in zip(alone, spawned, strict=True))


class Deadly(PairedDataset):
    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGKILL)


class Faulty(PairedDataset):
    def __getitem__(self, key):
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")  # as torch words it


def test_a_worker_that_is_killed(nvidia):
    data = training_set(nvidia)
    deadly = Deadly(data.pairs, data.data, data.size, 4, train=True)
    with pytest.raises(DataError, match=r"was killed.*set data\.workers 0, or provide more memory"):
        list(make_loader(deadly, stop=2, workers=1))


def test_workers_heed_no_sigterm_and_end_with_their_loader(nvidia):
    batches = iter(make_loader(training_set(nvidia), stop=40, workers=1))
    next(batches)
    [worker] = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid, number)
    assert len(list(batches)) == 39
    worker.join(5)
    assert worker.exitcode == 0
    again = iter(make_loader(training_set(nvidia), stop=40, workers=1))
    next(again)
    [worker] = multiprocessing.active_children()
    again.close()
    assert worker.exitcode == 0


def test_workers_without_the_private_names_of_torch(nvidia, monkeypatch):
    theirs = dataloader._MultiProcessingDataLoaderIter

    def renamed(loader):
        yield from theirs(loader)

    monkeypatch.setattr(dataloader.DataLoader, "_get_iterator", renamed)
    monkeypatch.delattr(dataloader, "_MultiProcessingDataLoaderIter")
    data = training_set(nvidia)
    batches = iter(make_loader(data, stop=40, workers=1))
    first = next(batches)
    [worker] = multiprocessing.active_children()
    batches.close()
    worker.join(5)
    assert worker.exitcode == 0
    monkeypatch.undo()
    assert equal(first, next(iter(make_loader(data, stop=40))))


def test_a_fault_of_the_code_is_no_fault_of_the_data(nvidia):
    data = training_set(nvidia)
    with pytest.raises(RuntimeError, match="Caught RuntimeError"):
        list(make_loader(Faulty(data.pairs, data.data, data.size, 4, train=True), stop=2))


def test_resumed_loader_continues_the_same_pixels(nvidia):
    data = training_set(nvidia)
    whole = list(make_loader(data, stop=12, batch=2))
    resumed = list(make_loader(data, start=6, stop=12, batch=2, workers=1))
    assert all(equal(one, other) for one, other in zip(whole[3:], resumed, strict=True))


def test_loader_leaves_the_global_generator_alone(nvidia):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(make_loader(training_set(nvidia), stop=2))
    assert torch.equal(torch.rand(1), expected)


def test_validation_order(nvidia):
    data = DataConfig(root=nvidia)
    test_set = PairedDataset(find_pairs(data, "test").pairs, data, SizeConfig(), 4)
    batches = list(make_loader(test_set, stop=len(test_set), shuffle=False))
    assert [batch["stem"] for batch in batches] == [["s0"], ["s1"]]
    assert "photo" not in batches[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_fault_reaches_the_user_as_one_line(nvidia, workers):
    (nvidia / "train_img" / "s3_img.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        list(make_loader(training_set(nvidia), stop=5, workers=workers))
    assert str(nvidia / "train_img" / "s3_img.png") in str(error.value)
    assert "\n" not in str(error.value)


def test_samples_of_two_sizes_in_one_batch(nvidia, save):
    save("train_label/s9_label.png", np.zeros((9, 20), np.uint8))
    save("train_inst/s9_inst.png", np.zeros((9, 20), np.uint8))
    save("train_img/s9_img.png", np.zeros((9, 20), np.uint8))
    data = training_set(nvidia, SizeConfig())
    with pytest.raises(DataError, match=r"differ in size: .*12x8.*; set stages\.STAGE\.size\.width and "):
        list(make_loader(data, stop=6, batch=6))
    assert len(list(make_loader(data, stop=6, batch=1))) == 6


class Crowded(PairedDataset):
    def __getitem__(self, key):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_too_little_shared_memory_is_told(nvidia, monkeypatch):
    data = training_set(nvidia)
    crowded = Crowded(data.pairs, data.data, data.size, 4, train=True)
    remedy = (
        r"; set data\.workers 0, or provide more memory \(in a container, more shared memory, such as --shm-size 1g\)$"
    )
    with pytest.raises(DataError, match=f"^a data worker did not have enough shared memory.*{remedy}"):
        list(make_loader(crowded, stop=2, workers=1))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    failures = []
    monkeypatch.setattr("sys.unraisablehook", failures.append)
    with pytest.raises(DataError, match=f"^the data workers cannot start.*{remedy}"):
        list(make_loader(data, stop=2, workers=1))
    gc.collect()
    assert failures == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there are not so many cores
@pytest.mark.parametrize(("cores", "ranks", "workers"), [(1, 1, 1), (2, 1, 1), (3, 1, 2), (64, 1, 4), (16, 8, 1)])
def test_workers_follow_from_the_cores_at_hand(nvidia, monkeypatch, cores, ranks, workers):
    monkeypatch.setattr("hdgan.sharding.cores.available_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert make_loader(training_set(nvidia), stop=2, workers=None).num_workers == workers
    assert make_loader(training_set(nvidia), stop=2).num_workers == 0
