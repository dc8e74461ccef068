"""Reproducible random numbers.

A run seeds every generator from (seed, rank, step) before each step. The noise of an image follows from a seed and the
image's number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*keys: int) -> int:
    """Mix non-negative integers into one 32-bit seed."""
    # NumPy pads short keys with zeros: without the number of keys, (5,) and (5, 0) would give the same seed.
    return int(np.random.SeedSequence((len(keys), *keys)).generate_state(1)[0])


def seed_everything(*keys: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, on the CPU and on every GPU."""
    seed = derive_seed(*keys)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - user code in workers or losses may draw from it
    torch.manual_seed(seed)


def seeded_generator(device: torch.device, *keys: int) -> torch.Generator:
    """A new generator, which on a CPU draws the numbers that PyTorch's own draws inside `seeded`."""
    return torch.Generator(device).manual_seed(derive_seed(*keys))


@contextmanager
def seeded(device: torch.device, *keys: int) -> Iterator[None]:
    """Seed PyTorch's generators of the CPU and of one device inside the block, and restore them afterwards."""
    gpu = device.type == "cuda"
    seed = derive_seed(*keys)
    with torch.random.fork_rng([device] if gpu else []):
        # torch.manual_seed would also seed the other GPUs, whose generators are not kept.
        torch.random.default_generator.manual_seed(seed)
        if gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
