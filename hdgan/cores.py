"""How many CPU cores this process may use, which can be far fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def available_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use, at least 1: those it is bound to, within the quota of its container.

    Args:
        cgroups: Where Linux mounts control groups, version 2.
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
