"""The order of training: an endless stream of samples that stops, resumes and splits over ranks exactly."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hdgan.config.options import option
from hdgan.data.dataset import LoaderBatch, PairedDataset, Sample
from hdgan.data.streams import Stream, stream_rng
from hdgan.data.transforms import same_size_remedy
from hdgan.devices import available_cores
from hdgan.errors import ConfigError, DataError, HdganError

_MOST_WORKERS = 4  # each holds batches of its own: more would cost memory that large pictures need


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (position, index) from an endless stream of epochs.

    Position p shows sample permutation(seed, p // n)[p % n]. Batches run on across the ends of epochs, so no sample is
    ever dropped. A global batch takes `batch * world` successive positions and each rank a contiguous slice of it, so
    the samples of a step do not depend on how many ranks share them.

    Args:
        n: Number of samples in the dataset.
        start: First position; for a resume, the number of samples (of all ranks) seen so far.
        stop: Position where the stream ends; the last batch is full and may run past it.
        batch: Samples a batch on each rank.
        seed: Seed of the permutations.
        rank: This process.
        world: Number of processes.
        shuffle: False shows every epoch in the order of the dataset.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        n: int,
        *,
        stop: int,
        start: int = 0,
        batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
    ) -> None:
        if n < 1 or batch < 1 or not 0 <= rank < world or start < 0:
            raise ConfigError(f"cannot sample with n={n}, batch={batch}, start={start}, rank {rank} of {world}")
        self.n, self.start, self.stop, self.batch = n, start, stop, batch
        self.seed, self.rank, self.world, self.shuffle = seed, rank, world, shuffle

    def __len__(self) -> int:
        """Number of batches from start to stop."""
        return max(0, -((self.start - self.stop) // (self.batch * self.world)))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.arange(self.n)
        for step in range(len(self)):
            first = self.start + (step * self.world + self.rank) * self.batch
            keys = []
            for position in range(first, first + self.batch):
                if self.shuffle and position // self.n != epoch:
                    epoch = position // self.n
                    order = stream_rng(Stream.ORDER, self.seed, epoch).permutation(self.n)
                keys.append((position, int(order[position % self.n])))
            yield keys


class StreamLoader(DataLoader[Any]):
    """A DataLoader of `LoaderBatch` that raises hdgan's own errors as they are, without a worker's traceback."""

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        return _WorkersIterator(self)

    def __iter__(self) -> Iterator[LoaderBatch]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            DataError: a file cannot be used, the samples of a batch differ in size, or a worker was killed or cannot
                start.
        """
        with explained_worker_death():
            try:
                batches = super().__iter__()
            except OSError as error:
                raise DataError(
                    f"the processes that read pictures cannot start ({error.strerror}); {_fewer_workers()}"
                ) from error
            try:
                for batch in batches:
                    if isinstance(batch, HdganError):
                        raise batch
                    yield batch
            finally:
                # Or workers would live as long as a traceback holds `batches`; they heed no SIGTERM at exit.
                if self.num_workers:
                    batches._shutdown_workers()  # type: ignore[attr-defined]


class _WorkersIterator(_MultiProcessingDataLoaderIter):
    """Torch's own, of which one that could not be made has nothing to shut down: torch prints a traceback for it."""

    _shutdown = True  # until torch sets it, just before the first worker starts


@contextmanager
def explained_worker_death() -> Iterator[None]:
    """Say what to do when a worker is killed; torch tells of it from a signal handler, wherever the program then is.

    Raises:
        DataError: a worker was killed, or found no shared memory for a batch.
    """
    try:
        yield
    except RuntimeError as error:
        # What a worker itself raises is told otherwise: "Caught RuntimeError in DataLoader worker process 0".
        if re.match(r"DataLoader worker \(pid", str(error)):
            what = "a process that reads pictures was killed, mostly because there was too little memory"
        elif "DataLoader worker" in str(error) and "shared memory(shm)" in str(error):
            what = "a process that reads pictures found too little shared memory for a batch"
        else:
            raise
        raise DataError(f"{what}; {_fewer_workers()}") from error


def _fewer_workers() -> str:
    return (
        f"set {option('data.workers')} 0, or give more memory (in a container more shared memory, such as "
        "--shm-size 1g)"
    )


def make_loader(
    dataset: PairedDataset,
    *,
    stop: int,
    start: int = 0,
    batch: int = 1,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    shuffle: bool = True,
    workers: int | None = 0,
    pin_memory: bool = False,
    multiprocessing_context: str | None = None,
) -> StreamLoader:
    """Load the stream of `StreamSampler` (see there for start, stop, batch, seed, rank, world and shuffle).

    One pass over the loader is the whole stream, so workers start once and end with it. For validation, shuffle=False,
    stop=len(dataset) and batch=1 give each sample once, in order.

    Args:
        dataset: The samples.
        workers: Processes that read ahead; 0 reads in this process, None chooses, see `suggested_workers`.
        pin_memory: Put batches into page-locked memory, for copies to a GPU that do not block.
        multiprocessing_context: How workers start: "fork", "spawn" or "forkserver"; None takes Python's default.

    Raises:
        DataError: while iterating, as `StreamLoader` tells.
    """
    if workers is None:
        workers = suggested_workers()
    sampler = StreamSampler(
        len(dataset), start=start, stop=stop, batch=batch, seed=seed, rank=rank, world=world, shuffle=shuffle
    )
    return StreamLoader(
        _Carrying(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        multiprocessing_context=multiprocessing_context if workers else None,
        # Without a generator of its own the loader would draw from the global one, and a resume would not repeat.
        generator=torch.Generator().manual_seed(seed),
    )


def suggested_workers() -> int:
    """How many processes should read for one training process, from 1 to 4.

    All but one of the cores that this process may use are shared by the training processes on this machine.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return min(_MOST_WORKERS, max(1, available_cores() // max(1, processes) - 1))


class _Carrying(Dataset[Any]):
    """Returns hdgan's errors instead of raising them: a worker's exception would reach the user as a traceback."""

    def __init__(self, dataset: PairedDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Sample | HdganError:
        try:
            return self.dataset[key]
        except HdganError as error:
            return error


def collate(samples: list[Sample]) -> LoaderBatch:
    """Stack samples.

    Raises:
        DataError: they differ in size.
    """
    sizes = [
        next(value.shape[-2:] for value in sample.values() if isinstance(value, torch.Tensor)) for sample in samples
    ]
    for sample, size in zip(samples, sizes, strict=True):
        if size != sizes[0]:
            raise DataError(
                f"samples of one batch differ in size: {samples[0]['stem']} is {sizes[0][1]}x{sizes[0][0]}, "
                f"{sample['stem']} is {size[1]}x{size[0]}; {same_size_remedy()}"
            )
    return default_collate(samples)


def _collate(samples: list[Sample | HdganError]) -> LoaderBatch | HdganError:
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, HdganError):
            return sample
        good.append(sample)
    try:
        return collate(good)
    except HdganError as error:
        return error


def _start_worker(worker: int) -> None:
    """Leave Ctrl-C and termination to the trainer, which saves first.

    Both reach all processes of its group. Workers end when the trainer says so, or within seconds of its death.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
