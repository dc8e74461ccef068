"""The CPU cores and threads of this process, where torchrun has started several on its machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from hdgan.devices import available_cores


def own_cores() -> int:
    """The number of CPU cores for this process: an equal part of those that the processes of this machine may use."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(1, available_cores() // max(1, processes))


def own_threads() -> int:
    """The number of threads that torch should use here: one for each of `own_cores`, or OMP_NUM_THREADS if the user has
    set it."""
    if "OMP_NUM_THREADS" in os.environ and not _set_by_torchrun():
        return torch.get_num_threads()
    return own_cores()


def _set_by_torchrun() -> bool:
    """Whether OMP_NUM_THREADS is torchrun's own choice, which is 1 for several processes unless the user has set it.

    The process itself cannot tell the two apart, but the environment in which torchrun was started does.
    """
    if os.environ["OMP_NUM_THREADS"] != "1" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    try:
        variables = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(variable.startswith(b"OMP_NUM_THREADS=") for variable in variables)
