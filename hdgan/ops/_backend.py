"""Which implementation of an op runs, and how its kernels are called.

Every op has four: `eager`, plain PyTorch, which is its definition; `cpu` and `cuda`, the C++ and CUDA kernels of
`hdgan._C`; and `triton`, the kernels of `hdgan.kernels`. The kernels of one op have the same name and arguments on all
three: tensors, None for a missing one, then plain values. They write into tensors that the op has allocated.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hdgan.errors import ConfigError
from hdgan.ops._torch_internals import constant_when_compiled, current_gpu, raw_stream, unusual_derivative
from hdgan.ops._verdicts import found_wrong

BACKENDS = ("eager", "cpu", "cuda", "triton")
DEVICE_OF = {"cpu": "cpu", "cuda": "cuda", "triton": "cuda"}
"""The kind of device whose tensors the kernels of a backend process."""
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Floating-point dtypes that kernels compute on; others, such as float64, are for `eager`."""
OLDEST_CUDA = (8, 0)
"""The lowest compute capability of which nvcc can make the CUDA kernels: they copy by cp.async (setup.py)."""
OLDEST_TRITON = (7, 0)
"""The lowest one for which Triton can compile its kernels: their atomics are relaxed. Triton promises nothing below
8.0; that they compile for 7.0 is tested."""

_forced: list[str | None] = [os.environ.get("HDGAN_BACKEND") or None]
"""The backends that the environment and each active `backend` ask for. The last one counts."""
_forked = False
"""Whether this process is a fork. OpenMP's threads do not exist there, and waiting for them would never end."""


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class BackendError(ConfigError):
    """A backend that was asked for by name cannot run here."""


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Make every op in this process run on the named backend; None leaves the choice to the ops again.

    The environment variable HDGAN_BACKEND does the same from the start. A call that names its own backend keeps it.

    Raises:
        BackendError: there is no backend of this name. One that cannot run raises where an op is called.
    """
    if name is not None and name not in BACKENDS:
        raise BackendError(f"hdgan.ops.backend: {_unknown(name)}")
    _forced.append(name)
    try:
        yield
    finally:
        # Another thread may have added its own since.
        del _forced[len(_forced) - 1 - _forced[::-1].index(name)]


def forced_backend() -> str | None:
    """The backend that the environment or an active `backend` asks for."""
    return _forced[-1]


def choose(op: str, asked: str | None, x: Tensor, dtype: torch.dtype | None = None) -> str:
    """The backend for an op on tensors on the device of `x`, computing in `dtype` (that of `x` unless given).

    Raises:
        BackendError: the backend that was asked for does not exist or cannot run; there is no silent fallback.
    """
    source = ""
    if asked is None and _forced[-1] is not None:
        asked, source = _forced[-1], " (from hdgan.ops.backend or HDGAN_BACKEND)"
    if derivative := unusual_derivative():
        if asked not in (None, "eager"):
            raise BackendError(f"{op}: backend {asked!r} cannot run in {derivative}: use 'eager'{source}")
        return "eager"
    # Raised here and not in _choose, in which the compiler would turn it into an error of its own.
    device = x.device
    name, problem = _choose(op, asked, device.type, device.index, x.dtype if dtype is None else dtype)
    if problem:
        raise BackendError(f"{op}: {problem}{source}")
    return name


@constant_when_compiled
def _choose(op: str, asked: str | None, device: str, index: int | None, dtype: torch.dtype) -> tuple[str, str | None]:
    """The backend and, if it is rejected, the reason."""
    if asked is None:
        for name in BACKENDS[1:]:
            if _why_not(name, device, index, dtype) is None and not found_wrong(op, name, device, index):
                return name, None
        return "eager", None
    if asked not in BACKENDS:
        return asked, _unknown(asked)
    reason = _why_not(asked, device, index, dtype)
    return asked, f"backend {asked!r} cannot run: {reason}" if reason else None


def _unknown(name: str) -> str:
    return f"expected a backend among {', '.join(BACKENDS)}, got {name!r}"


def _why_not(name: str, device: str, index: int | None, dtype: torch.dtype) -> str | None:
    if name == "eager":
        return None
    if device != DEVICE_OF[name]:
        return f"it works on {DEVICE_OF[name]} tensors, got one on {device}"
    if dtype not in KERNEL_DTYPES and dtype.is_floating_point:
        return f"it computes in float32, bfloat16 or float16, got {dtype}"
    return why_unusable(name, index)


def why_unusable(name: str, gpu: int | None = None) -> str | None:
    """Why a backend cannot run in this process, with the remedy; None if it can.

    Args:
        name: the backend.
        gpu: the index of the GPU that it would run on; None is the current one, if there is one.
    """
    if gpu is None and DEVICE_OF.get(name) == "cuda" and torch.cuda.is_available():
        gpu = torch.cuda.current_device()
    return _why_unusable(name, gpu)


@cache
def _why_unusable(name: str, gpu: int | None) -> str | None:
    if name == "eager":
        return None
    if name in ("cpu", "cuda"):
        try:
            extension = importlib.import_module("hdgan._C")
        except ImportError as error:
            return f"hdgan._C cannot be imported ({error}); install hdgan with a C++ compiler"
        if name == "cpu":
            return None if extension.cpu_supported else "this processor has no AVX2, FMA or F16C; use 'eager'"
        if extension.cuda_archs is None:
            return "hdgan._C was built without CUDA; install a wheel with CUDA, or from source with nvcc on PATH"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA GPU"
    if torch.version.hip:
        return "its kernels are for NVIDIA's GPUs, this PyTorch is for AMD's (ROCm)"
    if name == "triton":
        return _triton_missing() or _gpu_too_old_for_triton(gpu)
    too_old = _driver_too_old(extension.cuda_version, extension.cuda_driver_version())
    return too_old or _gpu_too_old(extension.cuda_archs, gpu)


def _driver_too_old(built: str, driver: int) -> str | None:
    """Compare the CUDA that the extension contains, such as 13.0, with what the driver is for, such as 12080 for 12.8.

    A driver runs everything of its own major version, and of earlier ones.
    """
    if driver // 1000 >= int(built.split(".")[0]):
        return None
    supported = f"{driver // 1000}.{driver % 1000 // 10}"
    return (
        f"hdgan._C was built with CUDA {built}, the driver of this GPU supports CUDA {supported}; update the driver, "
        f"or install hdgan again with the nvcc of CUDA {driver // 1000} on PATH"
    )


def _gpu_too_old(archs: str, gpu: int | None) -> str | None:
    capability = torch.cuda.get_device_capability(gpu)
    names = [arch.removesuffix("+PTX") for arch in archs.split()]
    generic = [tuple(map(int, name.split("."))) for name in names if not name[-1].isalpha()]
    same_major = any(arch[0] == capability[0] and arch <= capability for arch in generic)
    # The PTX is made for the oldest one (setup.py). An architecture that ends in a letter runs only its own code.
    by_ptx = "+PTX" in archs and bool(generic) and min(generic) <= capability
    exact = any(name.rstrip("af") == f"{capability[0]}.{capability[1]}" for name in names)
    if same_major or by_ptx or exact:
        return None
    found = f"this GPU has {_dotted(capability)}"
    if capability < OLDEST_CUDA:
        return f"the CUDA kernels need compute capability {_dotted(OLDEST_CUDA)} or higher, {found}"
    return (
        f"hdgan._C was built for compute capability {archs}, {found}; "
        f'install with TORCH_CUDA_ARCH_LIST="{_dotted(capability)}"'
    )


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _triton_missing() -> str | None:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton cannot be imported ({error}); pip install triton"
    return None


def _gpu_too_old_for_triton(gpu: int | None) -> str | None:
    capability = torch.cuda.get_device_capability(gpu)
    if capability >= OLDEST_TRITON:
        return None
    return (
        f"the Triton kernels need compute capability {_dotted(OLDEST_TRITON)} or higher, "
        f"this GPU has {_dotted(capability)}"
    )


def launch(stem: str, kernel: str, backend: str, device: torch.device, *arguments: Any) -> None:
    """Call `<stem>_<kernel>` of a backend on tensors of `device`: on its current stream, or with torch's threads."""
    function = kernel_of(stem, kernel, backend)
    if backend == "cpu":
        function(*arguments, 1 if _forked else torch.get_num_threads())
        return
    gpu = device.index  # None in a test that runs GPU kernels on the host
    if backend == "cuda":
        arguments = (*arguments, 0 if gpu is None else raw_stream(gpu))
    _call_on(gpu, function, arguments)


def declared(stem: str, name: str, backend: str, *arguments: Any) -> int:
    """What a GPU backend declares of its kernels by `<stem>_<name>`, such as the size of their scratch memory.

    It may depend on the GPU, which is that of the tensors if there are any.
    """
    gpu = next((x.get_device() for x in arguments if isinstance(x, Tensor) and x.is_cuda), None)
    return int(_call_on(gpu, kernel_of(stem, name, backend), arguments))


def _call_on(gpu: int | None, function: Any, arguments: tuple[Any, ...]) -> Any:
    """Call a function with a GPU as the current one. To change it takes longer than to see that it is."""
    if gpu is None or gpu == current_gpu():
        return function(*arguments)
    with torch.cuda.device(gpu):
        return function(*arguments)


@cache
def kernel_of(stem: str, kernel: str, backend: str) -> Any:
    """The function `<stem>_<kernel>` of a backend, which is behind `launch` and `declared`."""
    if backend == "triton":
        return getattr(importlib.import_module(f"hdgan.kernels.{stem}"), f"{stem}_{kernel}")
    return getattr(importlib.import_module("hdgan._C"), f"{stem}_{kernel}_{backend}")
