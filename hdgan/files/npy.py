"""Headers of .npy files, read so that any damage raises the same kind of error."""

from __future__ import annotations

import tokenize
from typing import IO

import numpy as np

Header = tuple[tuple[int, ...], bool, np.dtype]
"""Shape, whether the array is stored column by column, and its type."""


def read_npy_header(stream: IO[bytes]) -> Header:
    """Read the header of a .npy file; the stream then is at the start of the array.

    Raises:
        ValueError: the header is damaged.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read(stream)
    except (SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        # NumPy reads the header by Python's parser, and does not translate its errors.
        raise ValueError(f"its header is damaged ({error})") from error
