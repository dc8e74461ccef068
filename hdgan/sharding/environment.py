"""The place of this process among those that torchrun has started, as its environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hdgan.errors import ConfigError

MOST_PROCESSES = 2**20
_REMEDY = "start the command with torchrun, which sets these variables, or unset them to run one process"


@dataclass(frozen=True)
class ProcessPlace:
    """The number of a process and of all processes, in the run and on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def place_of(environment: Mapping[str, str] | None = None) -> ProcessPlace:
    """Read the place of this process.

    Args:
        environment: of the process; None uses its own.

    Returns:
        The place; that of a single process without the variables of torchrun.

    Raises:
        ConfigError: a variable is missing or out of range.
    """
    variables = os.environ if environment is None else environment
    if "WORLD_SIZE" not in variables:
        if "RANK" in variables:
            raise ConfigError(f"RANK is {variables['RANK']}, but WORLD_SIZE is not set: {_REMEDY}")
        return ProcessPlace()
    size = _number(variables, "WORLD_SIZE", 1, MOST_PROCESSES)
    if size == 1:
        return ProcessPlace()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in variables:
            raise ConfigError(f"WORLD_SIZE is {size}, but {name} is not set: {_REMEDY}")
    _number(variables, "MASTER_PORT", 0, 2**16 - 1)
    rank = _number(variables, "RANK", 0, size - 1)
    local_rank = _number(variables, "LOCAL_RANK", 0, size - 1) if "LOCAL_RANK" in variables else 0
    if "LOCAL_WORLD_SIZE" not in variables:
        return ProcessPlace(rank, size, local_rank, local_rank + 1)
    return ProcessPlace(rank, size, local_rank, _number(variables, "LOCAL_WORLD_SIZE", local_rank + 1, size))


def _number(variables: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = variables[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise ConfigError(f"{name} is {text!r:.60}, but must be a number from {least} to {most}: {_REMEDY}")
    return int(text)
