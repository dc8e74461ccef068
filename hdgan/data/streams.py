"""Independent random numbers from one seed: one stream for the order of samples, one for their geometry."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are drawn for; none is 0, which NumPy's seeding cannot tell from padding."""

    ORDER = 1
    GEOMETRY = 2


def stream_rng(stream: Stream, seed: int, key: int) -> np.random.Generator:
    """Generator of `stream` for one key, a number from 0 such as an epoch or a position."""
    # All keys have one length, and differ in their first word: NumPy fills short ones up with zeros.
    return np.random.default_rng((int(stream), seed, key))
