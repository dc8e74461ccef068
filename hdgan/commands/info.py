"""`hdgan info`: what this installation can do, why something is missing, and whether its kernels are right."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from json import dumps
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hdgan
from hdgan.allocator import allocator_name
from hdgan.commands.kernel_check import check_kernels, rate_of_copies
from hdgan.errors import HdganError
from hdgan.ops import _backend, _verdicts


def collect() -> dict[str, Any]:
    """Versions, GPUs and backends as plain values. Whatever is missing is None, or a text that says why."""
    forced = os.environ.get("HDGAN_BACKEND") or None
    return {
        "versions": _versions(),
        "extension": _extension(),
        "threads": torch.get_num_threads(),
        "allocator": allocator_name(),
        "gpus": _gpus(),
        "backends": {name: _why_unusable(name) for name in _backend.BACKENDS},
        "default": {device: _default(device, forced) for device in ("cpu", "cuda")},
        "HDGAN_BACKEND": forced,
        "wrong": _wrong(),
    }


def _wrong() -> list[dict[str, str]]:
    """Ops whose kernels an earlier check found wrong on a device of this machine, so that they are not chosen."""
    devices: list[tuple[str, int | None]] = [("cpu", None), *(("cuda", gpu) for gpu in _gpu_indices())]
    return [
        {"device": _verdicts.device_name(*device), "backend": backend, "op": op, "problem": problem}
        for device in devices
        for (backend, op), problem in _verdicts.wrong_on(*device).items()
    ]


def _gpu_indices() -> range:
    """The GPUs that PyTorch can use."""
    try:
        return range(torch.cuda.device_count())
    except (RuntimeError, AssertionError):  # a driver that torch cannot use
        return range(0)


def _versions() -> dict[str, str | None]:
    imported = {name: _version_of(name) for name in ("torch", "triton", "numpy")}
    python = platform.python_version()
    return {"hdgan": hdgan.__version__, "python": python, **imported, "torch CUDA": torch.version.cuda}


def _version_of(module: str) -> str | None:
    try:
        return str(importlib.import_module(module).__version__)
    except Exception:  # a broken installation of another package may raise anything
        return None


def _extension() -> dict[str, Any] | None:
    """How hdgan._C was built; None if it cannot be imported. The backends that need it then say why."""
    try:
        extension = importlib.import_module("hdgan._C")
    except Exception:
        return None
    return {
        "instruction set": extension.cpu_isa,
        "OpenMP": extension.openmp,
        "CUDA": extension.cuda_version,
        "GPU architectures": extension.cuda_archs,
    }


def _gpus() -> list[dict[str, Any]]:
    try:
        gpus = [torch.cuda.get_device_properties(index) for index in _gpu_indices()]
    except (RuntimeError, AssertionError):  # as in _gpu_indices
        return []
    driver = _driver() if gpus else None
    return [
        {
            "name": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory GiB": round(gpu.total_memory / 2**30, 1),
            "driver": driver,
            "backends": {
                name: _why_unusable(name, index) for name, kind in _backend.DEVICE_OF.items() if kind == "cuda"
            },
        }
        for index, gpu in enumerate(gpus)
    ]


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None


def _why_unusable(name: str, gpu: int | None = None) -> str | None:
    try:
        return _backend.why_unusable(name, gpu)
    except Exception as error:  # as above
        return f"{type(error).__name__}: {error}"


def _default(device: str, forced: str | None) -> dict[str, str | None]:
    """The backend of an op for float32 tensors on a kind of device, and why HDGAN_BACKEND is rejected, if it is."""
    try:
        name, refused = _backend._choose("", forced, device, None, torch.float32)
    except Exception as error:  # as above
        return {"backend": forced, "refused": f"{type(error).__name__}: {error}"}
    return {"backend": name, "refused": refused}


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what `collect` found, for people."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found["versions"].items():
        table.add_row(name, _plain(value))
    for name, value in (found["extension"] or {}).items():
        table.add_row(f"extension: {name}", _plain(value))
    table.add_row("threads", str(found["threads"]))
    table.add_row("allocator", found["allocator"])
    for index, gpu in enumerate(found["gpus"]):
        facts = f"capability {gpu['capability']}, {gpu['memory GiB']} GiB, driver {gpu['driver'] or 'unknown'}"
        table.add_row(f"GPU {index}", f"{gpu['name']}, {facts}")
        for name, reason in gpu["backends"].items():
            if reason != found["backends"][name]:  # which are those of the current GPU
                table.add_row(f"backend {name} on GPU {index}", _usability(reason))
    if not found["gpus"]:
        table.add_row("GPUs", "none")
    for name, reason in found["backends"].items():
        table.add_row(f"backend {name}", _usability(reason))
    for device, default in found["default"].items():
        by = ", by HDGAN_BACKEND" if found["HDGAN_BACKEND"] else ""
        refused = f", which is rejected: {default['refused']}" if default["refused"] else ""
        table.add_row(f"ops on {device} tensors", f"{default['backend']}{by}{refused}")
    for wrong in found["wrong"]:
        name = f"{wrong['op']} on {wrong['backend']}"
        table.add_row(name, f"found wrong on {wrong['device']}, so it is not chosen: {wrong['problem']}")
    console.print(table)


def _usability(reason: str | None) -> str:
    return "usable" if reason is None else f"not usable: {reason}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def run_check(found: dict[str, Any], progress: Callable[[str], None]) -> bool:
    """Check all kernels, and add what was found. Returns whether all are right."""
    checked = list(check_kernels(_gpu_indices(), progress))
    found["check"] = [
        {
            **asdict(result),
            "copy": rate_of_copies(torch.device(result.device)) if result.problem is None else None,
        }
        for result in checked
    ]
    return all(result.problem is None for result in checked)


def record_check(found: dict[str, Any]) -> None:
    """Record which kernels `run_check` found wrong.

    Raises:
        HdganError: the file cannot be written.
    """
    for name in {row["device"] for row in found["check"]}:
        device = torch.device(name)
        rows = [row for row in found["check"] if row["device"] == name]
        problems = {(row["backend"], row["op"]): row["problem"] for row in rows if row["problem"] is not None}
        _verdicts.record(device.type, device.index, {row["backend"] for row in rows}, problems)
    found["wrong"] = _wrong()


def show_check(console: Console, found: dict[str, Any]) -> None:
    """Print what `run_check` found, for people."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("op", "backend", "device"):
        table.add_column(head, no_wrap=True)
    table.add_column("kernels", overflow="fold")
    for head in ("forward", "backward"):
        table.add_column(f"{head} GB/s", justify="right", no_wrap=True)
    for row in found["check"]:
        verdict = "right" if row["problem"] is None else f"WRONG: {row['problem']}"
        rates = [_rate(row[direction], row["copy"]) for direction in ("forward", "backward")]
        table.add_row(row["op"], row["backend"], row["device"], verdict, *rates)
    console.print(table)


def _rate(moved: float | None, copy: float | None) -> str:
    """Bytes per second beside those of a copy."""
    return "" if moved is None or copy is None else f"{moved / 1e9:.3g} ({moved / copy:.0%})"


def info(*, check: bool = False, json: bool = False) -> int:
    """Print versions, GPUs, and which backends of the ops can run here, or why not.

    Args:
        check: compare every kernel that can run here with the definition of its op, and time it beside a copy. It takes
            about a minute. A kernel that is wrong is recorded in the cache folder and no longer chosen, until it is
            asked for by name or a later check finds it right.
        json: print JSON, for programs.
    """
    console = Console(markup=False, highlight=False, emoji=False)
    found = collect()
    right, unwritable = True, None
    if check:
        right = run_check(found, lambda what: None if json else console.print(f"checking {what}"))
        try:
            record_check(found)
        except HdganError as error:  # what the check found is shown first
            unwritable = error
    if json:
        print(dumps(found, indent=2))
    else:
        show(console, found)
        if check:
            show_check(console, found)
    if unwritable is not None:
        raise unwritable
    return 0 if right else 1
