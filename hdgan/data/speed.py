"""How fast samples are read."""

from __future__ import annotations

import time

from hdgan.data.dataset import PairedDataset
from hdgan.data.sampler import make_loader
from hdgan.errors import ConfigError

_SKIPPED = 4  # batches of each worker: twice as many as it reads ahead


def measure_loading(
    dataset: PairedDataset, *, images: int = 200, batch: int = 1, workers: int = 1, pin_memory: bool = False
) -> float:
    """Images a second that a training process receives from its workers while it does nothing else.

    The first batches are not counted: workers start with them, and read ahead. A dataset smaller than `images` is read
    several times, in the order of training, mostly from the system's file cache.

    Args:
        dataset: Samples as training reads them.
        images: Images to time, at least.
        batch: Images a batch.
        workers: Processes that read; 0 reads in this process.
        pin_memory: Copy batches into page-locked memory too, which needs a GPU.

    Raises:
        ConfigError: `images` or `batch` is less than 1.
        DataError: a file cannot be used.
    """
    if min(images, batch) < 1:
        raise ConfigError(f"cannot time {images} images in batches of {batch}: give 1 or more")
    skipped = _SKIPPED * max(1, workers)
    timed = -(-images // batch)
    loader = make_loader(dataset, stop=(skipped + timed) * batch, batch=batch, workers=workers, pin_memory=pin_memory)
    batches = iter(loader)
    for _ in range(skipped):
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return timed * batch / (time.perf_counter() - start)
