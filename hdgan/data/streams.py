"""Independent random numbers from one seed: a stream each for the order, the geometry and the colours of samples."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The purpose of random numbers. No value is 0, which NumPy's seeding does not distinguish from padding."""

    ORDER = 1
    GEOMETRY = 2
    COLOR = 3


def stream_rng(stream: Stream, seed: int, key: int) -> np.random.Generator:
    """Generator of `stream` for one key: a number from 0, such as an epoch or a position."""
    # All seeds have the same length and streams differ in the first number: NumPy pads shorter seeds with zeros.
    return np.random.default_rng((int(stream), seed, key))
