"""Many GPUs and nodes: `torchrun -m hdgan train …` starts one process for each GPU, and they average their gradients.

Every process builds the same networks from the same seed, so nothing is broadcast. Gradients are averaged by all-reduce
(`GradientAverage`) rather than by DistributedDataParallel, since a step takes the gradients of two networks from one
graph.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from hdgan.config.options import option
from hdgan.devices import choose_device
from hdgan.errors import ConfigError
from hdgan.training.rendezvous import START_TIMEOUT, TIMEOUT, OtherProcessError, Rendezvous
from hdgan.wording import count


@dataclass(frozen=True)
class World:
    """This process among all processes of the run."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    """How the processes communicate until training begins; from then on they use the methods of this class."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over all processes.

        Raises:
            OtherProcessError: one has ended.
        """
        if self.size > 1:
            with explained_backend_errors():
                dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process. The processes wait for each other, but for no GPU.

        Raises:
            OtherProcessError: one has ended.
        """
        if self.size == 1:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.int32)
        with explained_backend_errors():
            dist.all_reduce(counts)
        return [count > 0 for count in counts.tolist()]

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Let one process of each node run the block first, so that the others find what it has made.

        Raises:
            OtherProcessError: it has failed.
        """
        if self.local_rank:
            self.rendezvous.all_gather(None)
        yield
        if not self.local_rank:
            self.rendezvous.all_gather(None)

    def barrier(self) -> None:
        """Wait for all processes.

        Raises:
            OtherProcessError: one has ended.
        """
        if self.size > 1:
            with explained_backend_errors():
                dist.barrier()


@contextmanager
def explained_backend_errors() -> Iterator[None]:
    """Explain what an error of the backend usually means; its own text is about a connection, and has several lines."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise OtherProcessError(f"another process has ended; its message says why ({first})") from error


def _make_current(device: torch.device) -> torch.device:
    """Make this the default device of streams and graphs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _device_of(device: str, local_rank: int, size: int) -> str:
    """What an option means for one of many processes.

    A process that sees one GPU may have it for itself, or share it with all others of its machine by mistake. Only the
    user knows which, and "cuda:0" says so.
    """
    gpus = torch.cuda.device_count()
    if ":" in device:
        if device == "cuda:0" and gpus == 1:
            return device
        raise ConfigError(
            f"{option('device')} {device} would put all {size} processes on one device: use cuda, cpu or auto"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return device
    here = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
    if here > gpus:
        own = f"; if each process sees only its own GPU, use {option('device')} cuda:0" if gpus == 1 else ""
        raise ConfigError(
            f"there are {here} processes on this machine, but PyTorch sees {count(gpus, 'GPU')}: give torchrun "
            f"--nproc-per-node {gpus}, or {option('device')} cpu{own}"
        )
    return f"cuda:{local_rank}"


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, or run alone.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; with "auto" and "cuda" each process takes the GPU of its local rank.
            "cuda:0" is for processes that see one GPU each.

    Raises:
        ConfigError: the device does not exist, or only some processes have a GPU.
        OtherProcessError: the others do not start in time, or one of them has failed.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, _make_current(choose_device(device)))
        return
    rendezvous = Rendezvous.join(int(os.environ.get("RANK", "0")), size)
    with rendezvous.share_failure():
        chosen = _make_current(choose_device(_device_of(device, local_rank, size)))
        rendezvous.require_equal({"device": chosen.type}, START_TIMEOUT)
    # PyTorch's compiler imports this module when a step first needs it, and ten of its functions then hold the process
    # group as a default argument. The threads of gloo would live on after `destroy_process_group`, and could abort the
    # process while Python shuts down.
    importlib.import_module("torch.distributed.nn")
    on_gpu = chosen.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=rendezvous.store,
        rank=rendezvous.rank,
        world_size=size,
        timeout=TIMEOUT,
        device_id=chosen if on_gpu else None,
    )
    try:
        yield World(rendezvous.rank, size, chosen, local_rank, rendezvous)
    finally:
        dist.destroy_process_group()
