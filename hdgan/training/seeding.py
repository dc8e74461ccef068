"""Random numbers that a resumed run repeats: every generator is seeded from (seed, rank, step) before each step."""

from __future__ import annotations

import random

import numpy as np
import torch


def derive_seed(*keys: int) -> int:
    """Mix non-negative integers into one 32-bit seed."""
    # NumPy fills short keys up with zeros: without their number, (5,) and (5, 0) would give one seed.
    return int(np.random.SeedSequence((len(keys), *keys)).generate_state(1)[0])


def seed_everything(*keys: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, on the CPU and on every GPU."""
    seed = derive_seed(*keys)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - user code in workers or losses may draw from it
    torch.manual_seed(seed)
