"""The memory allocator of the C library, which tensors on a CPU come from, and whether it keeps what is freed.

By default glibc returns every large block to the system when it is freed, and the system clears each page of the next
one, which can take longer than the computation that fills it. `keep_memory` changes that for the whole process.
`use_huge_pages` lets the system clear 2 MiB at a time, and `use_one_heap` lets threads reuse each other's memory. The
commands call the first or the two others; `import hdgan` does nothing of that kind.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "HDGAN_KEEP_MEMORY"
"""Environment variable: 0 leaves the allocator as it is."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Parameters of mallopt, by their numbers in glibc's malloc.h."""
_SETTINGS = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}
"""No block of its own mapping, which is unmapped when it is freed; and a heap that never shrinks."""
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""PyTorch's own switch. It is read when the first tensor is made."""
_kept = False


def keep_memory() -> bool:
    """Keep freed memory in this process and reuse it, instead of returning it to the system.

    Networks on a CPU run faster, because their large results are no longer fresh pages that the system has to clear.
    The process holds on to its memory until it ends or calls `release_memory`, and its peak is higher, because a freed
    block is only reused for what fits into it. Call this before large tensors are made: earlier ones are not affected.

    Only glibc is changed. Nothing happens with another C library (musl, macOS, Windows), where another allocator has
    been preloaded (jemalloc, tcmalloc, mimalloc), where the user has configured glibc's (any environment variable
    MALLOC_… or glibc.malloc in GLIBC_TUNABLES), or with HDGAN_KEEP_MEMORY=0. Forked processes, such as the workers of a
    data loader, inherit the setting; other child processes do not.

    Returns:
        Whether freed memory is kept from now on.
    """
    global _kept
    if not _kept and os.environ.get(VARIABLE) != "0" and not _configured() and _is_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        _kept = all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
        if _kept:
            # A child would share the free pages, and the system copy each that the parent writes to.
            os.register_at_fork(before=release_memory)
    return _kept


def use_one_heap() -> None:
    """Let all threads take their memory from one heap; call this before threads start.

    The heaps that glibc gives to further threads have 64 MiB each, so it maps every larger block anew, and the system
    clears it. In one heap the blocks that a thread frees serve the others: less memory and less time. Nothing happens
    where `keep_memory` would do nothing.
    """
    if os.environ.get(VARIABLE) != "0" and not _configured() and _is_glibc():
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def use_huge_pages() -> None:
    """Ask the system for huge pages behind PyTorch's large tensors on a CPU; call this before the first tensor is made.

    This costs less memory than `keep_memory` and saves less time. Nothing happens where the environment already says
    what PyTorch should do (THP_MEM_ALLOC_ENABLE). Linux follows unless transparent huge pages are turned off.
    """
    os.environ.setdefault(_HUGE_PAGES, "1")


def release_memory() -> None:
    """Return to the system what `keep_memory` has kept, as far as it is free; nothing without it."""
    if _kept:
        ctypes.CDLL(None).malloc_trim(0)


def allocator_name() -> str:
    """The allocator of this process and how it is configured, such as "glibc 2.36, freed memory kept".

    Another allocator is named by its file, such as "libjemalloc.so.2".
    """
    if not _is_glibc():
        return _library_of_malloc() or sys.platform
    name = os.confstr("CS_GNU_LIBC_VERSION") or "glibc"
    huge = ["huge pages"] if os.environ.get(_HUGE_PAGES) == "1" else []
    return ", ".join([name, *(["freed memory kept"] if _kept else []), *huge, *_configured()])


def same_allocator() -> dict[str, str]:
    """Environment variables that give a child process, of any version of hdgan, the allocator of this one."""
    if not _kept:
        return {VARIABLE: "0"}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(sys.maxsize)}


def _configured() -> list[str]:
    """The user's own settings of glibc's allocator."""
    tunables = [part for part in os.environ.get("GLIBC_TUNABLES", "").split(":") if part.startswith("glibc.malloc.")]
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")] + tunables


def _is_glibc() -> bool:
    """Whether this process allocates by glibc: it has this C library, and nothing has replaced its malloc."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):  # musl knows no such name
        return False
    return bool(version) and (_library_of_malloc() or "").startswith(("libc.so.6", "libc-2."))


class _Place(ctypes.Structure):
    """Dl_info of dlfcn.h."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _library_of_malloc() -> str | None:
    """The name of the file that the process's malloc lies in; None on systems without dladdr."""
    if os.name == "nt":
        return None
    process: Any = ctypes.CDLL(None)
    place = _Place()
    try:
        found = process.dladdr(ctypes.cast(process.malloc, ctypes.c_void_p), ctypes.byref(place))
    except AttributeError:
        return None
    return Path(os.fsdecode(place.file)).name if found and place.file else None
