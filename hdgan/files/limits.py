"""How much memory a file may take: a limit that is checked before anything is allocated.

A small file can declare any size. An image of a few bytes may claim 2^31 pixels per side, and a compressed archive may
expand a thousandfold. Every reader therefore compares the declared size of a file with one limit, in bytes of memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from hdgan.errors import ConfigError, DataError, HdganError

VARIABLE = "HDGAN_MAX_GIB"
"""Environment variable that sets the limit, in GiB."""
DEFAULT_GIB = 1.0


def max_bytes() -> int:
    """How many bytes of memory one file may take: 1 GiB unless the environment variable HDGAN_MAX_GIB says otherwise.

    Raises:
        ConfigError: the variable is not a positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_GIB
        if not 0 < limit < 2**33:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{VARIABLE} is {text!r}: give a positive number of GiB, for example 4") from None
    return int(limit * 2**30)


def require_bounded(path: Path | str, n_bytes: int, what: str, error: type[HdganError] = DataError) -> None:
    """Refuse a file that would take more memory than the limit.

    Args:
        path: the file, or what a message calls it.
        n_bytes: how much memory its content takes according to the file.
        what: where the number comes from, for example "an image of 200000x200000 pixels".
        error: the class of the error to raise.

    Raises:
        HdganError: of the given class.
    """
    limit = max_bytes()
    if n_bytes > limit:
        raise error(
            f"{path} is {what}, which takes {n_bytes / 2**30:.1f} GiB of memory, more than the limit of "
            f"{limit / 2**30:g} GiB; if this is intended, set the environment variable {VARIABLE} to a larger number"
        )
