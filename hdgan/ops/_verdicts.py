"""Ops whose kernels `hdgan info --check` found wrong on a device. They are not chosen there until asked for by name.

A verdict is about one device and one version of torch and of hdgan: with others, the kernels are others.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from hdgan.errors import HdganError
from hdgan.files.cache import default_cache

OF_STEM = {"instance_reduce": "instance_mean", "instance_broadcast": "instance_mean", "label_planes": "encode_labels"}
"""The op by whose name the kernels of another one are called."""


@dataclass(frozen=True)
class WrongKernel:
    """A kernel that does not compute what its op is defined as."""

    device: str
    torch: str
    hdgan: str
    backend: str
    op: str
    problem: str


@dataclass(frozen=True)
class WrongKernels:
    """The content of the file."""

    wrong: tuple[WrongKernel, ...] = field(default_factory=tuple)


def verdict_file() -> Path:
    """Where verdicts are kept: in the folder that HDGAN_CACHE names."""
    return default_cache() / "kernels.json"


def device_name(kind: str, gpu: int | None) -> str:
    """What a device is called in a verdict."""
    if kind == "cuda":
        return torch.cuda.get_device_name(gpu)
    return _processor()


@cache
def _processor() -> str:
    """The name of this machine's processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def found_wrong(op: str, backend: str, kind: str, gpu: int | None) -> str | None:
    """The problem that a check found with an op on a device; None if it found none, or there was none."""
    return wrong_on(kind, gpu).get((backend, OF_STEM.get(op, op)))


@cache
def wrong_on(kind: str, gpu: int | None) -> dict[tuple[str, str], str]:
    """The problems on a device by backend and op. The file is read once in a process."""
    known = _read()
    if not known:
        return {}  # without asking for the name of the device
    about = device_name(kind, gpu), torch.__version__, version("hdgan")
    return {(v.backend, v.op): v.problem for v in known if (v.device, v.torch, v.hdgan) == about}


def record(kind: str, gpu: int | None, checked: Iterable[str], problems: dict[tuple[str, str], str]) -> None:
    """Replace the verdicts on the checked backends of a device.

    Args:
        kind, gpu: the device.
        checked: names of backends.
        problems: by backend and op.

    Raises:
        HdganError: the file cannot be written.
    """
    from hdgan.files.json import write_json

    about = device_name(kind, gpu), torch.__version__, version("hdgan")
    names = set(checked)
    kept = [v for v in _read() if not ((v.device, v.torch, v.hdgan) == about and v.backend in names)]
    found = [WrongKernel(*about, backend, op, problem) for (backend, op), problem in sorted(problems.items())]
    try:
        file = verdict_file()
        if kept or found:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, WrongKernels((*kept, *found)))
        elif os.path.lexists(file):
            file.unlink()
    except (OSError, RuntimeError) as error:
        raise HdganError(f"cannot keep what the check found: {error}; name another folder by HDGAN_CACHE") from error
    wrong_on.cache_clear()


def _read() -> tuple[WrongKernel, ...]:
    from hdgan.files.json import read_json

    try:
        file = verdict_file()
    except RuntimeError:  # this user has no home, so no check has kept anything there
        return ()
    if not os.path.lexists(file):  # or it lies where this process may not look: no op may fail because of that
        return ()
    try:
        return read_json(file, WrongKernels, "delete it, and run hdgan info --check again").wrong
    except HdganError as error:
        warnings.warn(f"{error}; kernels that a check found wrong may be chosen", stacklevel=2)
        return ()
