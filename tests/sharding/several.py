"""Several processes of one run, started as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def environments(size: int) -> list[dict[str, str]]:
    """What each of the processes has in its environment; they meet at a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(size)]


def start_all(size: int, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Start Python in several processes."""
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments(size)
    ]


def end_all(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Wait for all; returns the exit status of each and what it printed."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs
