"""Many GPUs and nodes: `torchrun -m hdgan …` starts one process for each GPU, or several on CPUs.

In training they average their gradients. Every process builds the same networks from the same seed, so nothing is
broadcast. In other commands each takes its share of the items, and all of them receive all results in the order of the
items. What is made of these results is therefore the same, bit for bit, for any number of processes.
"""

from __future__ import annotations

import importlib
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hdgan.config.options import option
from hdgan.devices import choose_device
from hdgan.errors import ConfigError, OtherProcessError
from hdgan.sharding.cores import own_threads
from hdgan.sharding.environment import ProcessPlace, place_of
from hdgan.sharding.rendezvous import START_TIMEOUT, TIMEOUT, Rendezvous
from hdgan.wording import count

T = TypeVar("T")


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
        """Whether this process writes what belongs to the run as a whole."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process: every `size`-th one, so that each process has both early and late ones."""
        return items[self.rank :: self.size]

    def in_order(self, own: Iterable[T], total: int, block: int = 1) -> Iterator[T]:
        """Join the results of all processes in the order of the items, in each of them.

        The processes compute the results while they iterate, and exchange them in rounds. If one fails or is killed,
        the others end in their next round.

        Args:
            own: the results of `share(items)`, one for each, in the same order. Only what pickle can copy.
            total: number of all items.
            block: results of each process in a round.

        Raises:
            OtherProcessError: another process has ended.
        """
        if self.size == 1:
            yield from own
            return
        results = iter(own)
        try:
            for start in range(0, total, self.size * block):
                rows = self.all_gather(list(islice(results, block)))
                for k in range(min(total - start, self.size * block)):
                    yield rows[k % self.size][k // self.size]
        finally:
            getattr(results, "close", lambda: None)()  # ends threads and workers that read ahead

    def all_gather(self, value: T) -> list[T]:
        """Give a value that pickle can copy to all processes.

        Returns:
            The values of all processes, in the order of their ranks.

        Raises:
            OtherProcessError: one has ended.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with explained_backend_errors():
            dist.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes while the others wait, in all of them; something that pickle can copy.

        Raises:
            OtherProcessError: another process has ended.
        """
        return self.all_gather(make() if self.is_main else None)[0]  # type: ignore[return-value]

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
        connection = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise OtherProcessError(
            f"another process has ended; its message says why, unless it was killed ({connection})"
        ) from error


def _make_current(device: torch.device) -> torch.device:
    """Make this the default device of streams and graphs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _device_of(device: str, place: ProcessPlace) -> str:
    """What an option means for one of many processes.

    A process that sees one GPU may have it for itself, or share it with all others of its machine by mistake. Only the
    user knows which, and "cuda:0" says so.
    """
    gpus = torch.cuda.device_count()
    if ":" in device:
        if device == "cuda:0" and gpus == 1:
            return device
        raise ConfigError(
            f"{option('device')} {device} would put all {place.size} processes on one device: use cuda, cpu or auto"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return device
    here = place.local_size
    if here > gpus:
        own = f"; if each process sees only its own GPU, use {option('device')} cuda:0" if gpus == 1 else ""
        raise ConfigError(
            f"there are {here} processes on this machine, but PyTorch sees {count(gpus, 'GPU')}: give torchrun "
            f"--nproc-per-node {gpus}, or {option('device')} cpu{own}"
        )
    return f"cuda:{place.local_rank}"


@contextmanager
def join_world(device: str, *, by_nccl: bool = True) -> Iterator[World]:
    """Join the processes that torchrun started, or run alone.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; with "auto" and "cuda" each process takes the GPU of its local rank.
            "cuda:0" is for processes that see one GPU each.
        by_nccl: GPUs exchange tensors directly, as training needs it.

    Raises:
        ConfigError: the device does not exist, only some processes have a GPU, or the environment is not torchrun's.
        OtherProcessError: the others do not start in time, or one of them has failed.
    """
    place = place_of()
    if place.size == 1:
        yield World(0, 1, _make_current(choose_device(device)))
        return
    rendezvous = Rendezvous.join(place.rank, place.size)
    with rendezvous.share_failure():
        chosen = _make_current(choose_device(_device_of(device, place)))
        rendezvous.require_equal({"device": chosen.type}, START_TIMEOUT)
    # PyTorch's compiler imports this module when a step first needs it, and ten of its functions then hold the process
    # group as a default argument. The threads of gloo would live on after `destroy_process_group`, and could abort the
    # process while Python shuts down.
    importlib.import_module("torch.distributed.nn")
    nccl = by_nccl and chosen.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if nccl else "gloo",
        store=rendezvous.store,
        rank=place.rank,
        world_size=place.size,
        timeout=TIMEOUT,
        device_id=chosen if nccl else None,
    )
    try:
        yield World(place.rank, place.size, chosen, place.local_rank, rendezvous)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def join_shards(device: str = "cpu") -> Iterator[World]:
    """Join the processes that share the items of a command, or run alone.

    All of them leave the block together. If one fails, is killed or is interrupted, all end, and one of them on each
    machine says why.

    Args:
        device: as of `join_world`; without a number, `choose_device` then gives the GPU of this process.

    Raises:
        ConfigError, OtherProcessError: as `join_world`.
        OtherProcessError: another process has ended.
    """
    with join_world(device, by_nccl=False) as world:
        if world.size == 1:
            yield world
            return
        torch.set_num_threads(own_threads())
        with _restored_sigterm():
            with world.rendezvous.share_failure():
                _on_sigterm(_terminate)
                try:
                    yield world
                    world.barrier()  # which sees at once that a process was killed
                except BaseException as error:
                    _on_sigterm(signal.SIG_IGN)  # torchrun sends it as soon as one process has ended
                    world.rendezvous.publish(error)
                    dist.destroy_process_group()  # now the others, who may wait for this process, end as well
                    raise
            world.barrier()  # the first process may have the store, which the others have read now


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM by an error, so that no temporary file is left and the user reads why."""
    raise OtherProcessError(
        "the run was terminated, as torchrun does when a process has ended; its message says why, unless it was killed"
    )


def _on_sigterm(handler: Any) -> None:
    """Handle SIGTERM so; outside of the main thread, Python does not allow it, and nothing changes."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _restored_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        _on_sigterm(before)


ALONE = World(0, 1, torch.device("cpu"))
"""A single process, for functions that several can share; they do not use its device."""
