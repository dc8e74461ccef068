"""What a process can run on: its device, whether the memory suffices, and its CPU cores."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.wording import count


def network_format(device: torch.device) -> torch.memory_format:
    """The memory format in which convolutions run best on a device.

    This is channels_last on GPUs, and on CPUs by oneDNN. PyTorch's own convolution for CPUs needs contiguous images.
    """
    last = device.type == "cuda" or torch.backends.mkldnn.is_available()
    return torch.channels_last if last else torch.contiguous_format


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is not enough memory. On a CPU and in libraries, only its text says so.

    The texts are those of PyTorch's allocators, TorchScript, cuBLAS, cuDNN, oneDNN and shared memory.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # of a process that cannot be started
        return error.errno == errno.ENOMEM
    return any(text in str(error) for text in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
    "could not create a memory object",
    "Cannot allocate memory",
)


@contextmanager
def enough_memory(message: str) -> Iterator[None]:
    """Raise ConfigError with this message if there is not enough memory.

    The memory used inside has then been freed, since the frames that the error refers to are cleared.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        raise ConfigError(message) from error


def choose_device(device: str) -> torch.device:
    """Turn a device option into an existing device; without a number, CUDA's current device.

    Raises:
        ConfigError: it does not exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    given = f"{option('device')} {device:.60}"
    try:
        chosen = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{given} is not a device: give auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"{given} is not a device that hdgan supports: give auto, cpu, cuda or cuda:N")
    if chosen.type == "cpu":
        return torch.device("cpu")
    found, index = torch.cuda.device_count(), chosen.index or 0
    if index >= found:
        seen = count(found, "CUDA device")
        raise ConfigError(f"{given} needs CUDA device {index}, but PyTorch sees {seen}: use {option('device')} cpu")
    return torch.device("cuda", torch.cuda.current_device() if chosen.index is None else index)


def available_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The number of CPU cores that this process may use, which can be far fewer than the machine has.

    These are the cores that the process is bound to, limited by the quota of its container. At least 1.

    Args:
        cgroups: where Linux mounts control groups, version 2.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(int(quota) for quota in _quotas(cgroups))]))


def _quotas(cgroups: Path) -> list[float]:
    """Cores that the groups of this process grant it, from the outermost to its own."""
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    folder = cgroups / own.lstrip("/")
    quotas = []
    for group in (folder, *folder.parents):
        if not group.is_relative_to(cgroups):
            break
        try:
            most, period = (group / "cpu.max").read_text().split()
            quotas.append(float(most) / float(period))
        except (OSError, ValueError):  # no file, or "max": no quota
            continue
    return quotas
