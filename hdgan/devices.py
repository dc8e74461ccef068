"""What a process can run on: its device, whether the memory suffices, and its CPU cores."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from hdgan.config.options import option
from hdgan.errors import ConfigError
from hdgan.wording import count

N = TypeVar("N", int, float)


def network_format(device: torch.device) -> torch.memory_format:
    """The memory format in which convolutions run best on a device.

    This is channels_last on GPUs, and on CPUs by oneDNN. PyTorch's own convolution for CPUs needs contiguous images.
    """
    last = device.type == "cuda" or torch.backends.mkldnn.is_available()
    return torch.channels_last if last else torch.contiguous_format


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether a CPU lacks instructions for bfloat16, so that networks are slower in it than in float32.

    False where PyTorch does not tell.
    """
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    has = torch.cpu.get_capabilities()
    return has.get("architecture") == "x86_64" and not has.get("avx512_bf16") and not has.get("amx_bf16")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is not enough memory. On a CPU and in libraries, only its text says so.

    The texts are those of PyTorch's allocators, CUDA, NCCL, Triton, TorchScript, cuBLAS, cuDNN, oneDNN and shared
    memory.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # of a process that cannot be started
        return error.errno == errno.ENOMEM
    return any(text in str(error) for text in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
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


def available_memory(device: torch.device, cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process can still take on a device; None where the system does not tell.

    On a GPU this includes what PyTorch holds already, which a new stage can use. On a CPU it is what Linux considers
    available, limited by the memory of the container.

    Args:
        device: a CPU or a CUDA device.
        cgroups: where Linux mounts control groups, version 2.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    limits = _of_groups(cgroups, lambda group: int(_text(group, "memory.max")) - int(_text(group, "memory.current")))
    return max(0, min([free, *limits]))


def _quotas(cgroups: Path) -> list[float]:
    """Cores that the groups of this process grant it."""

    def quota(group: Path) -> float:
        most, period = _text(group, "cpu.max").split()
        return float(most) / float(period)

    return _of_groups(cgroups, quota)


def _of_groups(cgroups: Path, read: Callable[[Path], N]) -> list[N]:
    """What is read from each control group of this process, without those that set no limit."""
    try:
        own = next(line[3:] for line in _text(Path("/proc/self"), "cgroup").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    folder: Path = cgroups / own.lstrip("/")
    found: list[N] = []
    for group in (folder, *folder.parents):
        if not group.is_relative_to(cgroups):
            break
        try:
            found.append(read(group))
        except (OSError, ValueError):  # no file, or "max": no limit
            continue
    return found


def _text(folder: Path, name: str) -> str:
    return (folder / name).read_text()
