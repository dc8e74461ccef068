"""Memory that does not suffice, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hdgan.devices import is_out_of_memory
from hdgan.errors import ConfigError


@contextmanager
def enough_memory(what: str, size: str) -> Iterator[None]:
    """Raise ConfigError where memory does not suffice for `what` with pictures of `size`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"out of memory: {what} with a picture of {size}; take a lower --width, or --device cpu"
        ) from error
