"""The order of training: an endless stream of samples that can be stopped, resumed and split over ranks exactly."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, dataloader, default_collate

from hdgan.config.options import option
from hdgan.data.dataset import LoaderBatch, PairedDataset, Sample
from hdgan.data.streams import Stream, stream_rng
from hdgan.data.transforms import same_size_remedy
from hdgan.errors import ConfigError, DataError, HdganError
from hdgan.sharding.cores import own_cores

_MOST_WORKERS = 4  # each holds batches of its own, which take much memory where images are large


@dataclass(eq=False)
class StreamSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (position, index) from an endless stream of epochs.

    Position p shows sample permutation(seed, p // n)[p % n]. Batches cross the ends of epochs, so no sample is dropped.
    A global batch takes `batch * world` successive positions and each rank a contiguous slice of it, so the samples of
    a step do not depend on how many ranks share them.

    Raises:
        ConfigError: an argument is out of range.
    """

    n: int
    """Number of samples in the dataset."""
    _: KW_ONLY
    stop: int
    """Position where the stream ends; the last batch is full and may run past it."""
    start: int = 0
    """First position; for a resume, the number of samples (of all ranks) seen so far."""
    batch: int = 1
    """Samples per batch on each rank."""
    seed: int = 0
    """Seed of the permutations."""
    rank: int = 0
    """This process."""
    world: int = 1
    """Number of processes."""
    shuffle: bool = True
    """False shows every epoch in the order of the dataset."""

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch < 1 or not 0 <= self.rank < self.world or self.start < 0:
            values = f"n={self.n}, batch={self.batch}, start={self.start}, rank {self.rank} of {self.world}"
            raise ConfigError(f"cannot sample with {values}")

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
    """A DataLoader of `LoaderBatch` that raises hdgan's own errors as they are, without a worker's traceback.

    Two private names of PyTorch are looked up here. A version without them loads the same batches: it may print a
    traceback before the error that workers cannot start, and workers may outlive an error until it is handled.
    """

    def _get_iterator(self) -> Any:
        theirs = getattr(dataloader, "_MultiProcessingDataLoaderIter", None)
        if not self.num_workers or theirs is None:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        # Torch sets _shutdown to False just before the first worker starts. Where that fails earlier, torch would look
        # for the attribute in vain, and print a traceback.
        return type("WorkersIterator", (theirs,), {"_shutdown": True})(self)

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
                raise DataError(f"the data workers cannot start ({error.strerror}); {_fewer_workers()}") from error
            try:
                for batch in batches:
                    if isinstance(batch, HdganError):
                        raise batch
                    yield batch
            finally:
                # Otherwise workers live as long as a traceback holds `batches`; they ignore SIGTERM at exit.
                getattr(batches, "_shutdown_workers", lambda: None)()


@contextmanager
def explained_worker_death() -> Iterator[None]:
    """Say what to do when a worker is killed. Torch raises that from a signal handler, wherever the program then is.

    Raises:
        DataError: a worker was killed, or found no shared memory for a batch.
    """
    try:
        yield
    except RuntimeError as error:
        # An error that a worker itself raises reads "Caught RuntimeError in DataLoader worker process 0".
        if re.match(r"DataLoader worker \(pid", str(error)):
            what = "a data worker was killed, probably because memory ran out"
        elif "DataLoader worker" in str(error) and "shared memory(shm)" in str(error):
            what = "a data worker did not have enough shared memory for a batch"
        else:
            raise
        raise DataError(f"{what}; {_fewer_workers()}") from error


def _fewer_workers() -> str:
    return (
        f"set {option('data.workers')} 0, or provide more memory (in a container, more shared memory, such as "
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
    """Load the samples in the order of a `StreamSampler`.

    One pass over the loader is the whole stream, so workers start once and end with it. For validation, shuffle=False,
    stop=len(dataset) and batch=1 give each sample once, in order.

    Args:
        dataset: The samples.
        stop: Position where the stream ends.
        start: First position.
        batch: Samples per batch on each rank.
        seed: Seed of the permutations.
        rank: This process.
        world: Number of processes.
        shuffle: False shows every epoch in the order of the dataset.
        workers: Processes that read ahead; 0 reads in this process, None chooses, see `suggested_workers`.
        pin_memory: Put batches into page-locked memory, for copies to a GPU that do not block.
        multiprocessing_context: How workers start: "fork", "spawn" or "forkserver"; None takes Python's default.

    Raises:
        DataError: while iterating, as `StreamLoader.__iter__`.
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
    """How many data workers one training process should have, from 1 to 4.

    The training processes of this machine share all but one of the cores that this process may use.
    """
    return min(_MOST_WORKERS, max(1, own_cores() - 1))


class _Carrying(Dataset[Any]):
    """Returns hdgan's errors instead of raising them, since a worker's exception would reach the user as a
    traceback."""

    def __init__(self, dataset: PairedDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Sample | HdganError:
        try:
            return self.dataset[key]
        except HdganError as error:
            return error


def _collate(samples: list[Sample | HdganError]) -> LoaderBatch | HdganError:
    """Stack samples. An error, such as a difference in size, is returned, and `StreamLoader` raises it."""
    for sample in samples:
        if isinstance(sample, HdganError):
            return sample
    good = cast(list[Sample], samples)
    sizes = [next(value.shape[-2:] for value in sample.values() if isinstance(value, torch.Tensor)) for sample in good]
    for sample, size in zip(good, sizes, strict=True):
        if size != sizes[0]:
            return DataError(
                f"samples of a batch differ in size: {good[0]['stem']} is {sizes[0][1]}x{sizes[0][0]}, "
                f"{sample['stem']} is {size[1]}x{size[0]}; {same_size_remedy()}"
            )
    return default_collate(good)


def _start_worker(worker: int) -> None:
    """Ignore Ctrl-C and termination, which reach the whole process group: the trainer has to save first.

    Workers end when the trainer tells them to, or within seconds of its death.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
