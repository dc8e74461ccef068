"""The processes of a run: they find each other, compare what they have, and end together if one fails.

They use the store by which PyTorch's processes find each other. It holds text and needs neither a backend nor a GPU. A
process that fails leaves the reason there before it ends, and the others end with it.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from hdgan.errors import ConfigError, HdganError, OtherProcessError
from hdgan.wording import count

T = TypeVar("T")

START_TIMEOUT = timedelta(seconds=60)
"""How long a process waits for the others to start."""
TIMEOUT = timedelta(hours=3)
"""How long a process waits for the others afterwards. They wait in a barrier while the main one measures, renders
scenes or writes to a slow disk, and NCCL would end them after ten minutes. Torchrun sees at once that a process has
died; nothing sees one that hangs before this time."""
_STORE_TIMEOUT = timedelta(seconds=10)
"""How long the process with the store waits for the others to read why a process has failed."""
_POLL_SECONDS = 0.05
_stores: dict[tuple[str | None, ...], tuple[dist.Store, Iterator[int]]] = {}
"""The store of this process by its place in the environment, and how often the processes have joined by it."""
_SHOWN = 3  # differences in a message
_FAILURE, _ENDED, _TOLD = "hdgan/failure", "hdgan/ended", "hdgan/told"  # keys of the store


@dataclass(frozen=True)
class Rendezvous:
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    size: int = 1
    store: dist.Store | None = None
    """None for a single process."""
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @staticmethod
    def join(rank: int, size: int) -> Rendezvous:
        """Find the other processes by the environment that torchrun sets. A program may do so several times.

        Args:
            rank: of this process.
            size: number of processes.

        Raises:
            OtherProcessError: they do not connect.
        """
        address = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT"), str(rank), str(size)
        try:
            if address not in _stores:
                _stores[address] = next(dist.rendezvous("env://", timeout=START_TIMEOUT))[0], itertools.count()
        except RuntimeError as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise OtherProcessError(
                f"process {rank} has waited {START_TIMEOUT.total_seconds():g} seconds for all {size} processes of the "
                f"run to connect at {where}: read the messages of the others, then start all of them together"
            ) from error
        store, times = _stores[address]
        store.set_timeout(TIMEOUT)
        # What the processes have told each other before must not be taken for what they tell now.
        return Rendezvous(rank, size, dist.PrefixStore(f"hdgan-{next(times)}", store))

    def all_gather(self, value: T, timeout: timedelta = TIMEOUT) -> list[T]:
        """Give a value to all processes. Each of them calls this as often as the others do.

        Args:
            value: something that JSON can hold.
            timeout: how long to wait for the others.

        Returns:
            The values of all processes, in the order of their ranks.

        Raises:
            OtherProcessError: a process has failed, or has sent nothing for that long.
        """
        if self.store is None:
            return [value]
        turn = next(self._turns)
        keys = [f"hdgan/{turn}/{rank}" for rank in range(self.size)]
        with self._explained_store_errors():
            self.store.set(keys[self.rank], json.dumps(value))
            self._wait(keys, timeout)
            return [json.loads(self.store.get(key)) for key in keys]

    def require_equal(self, facts: Mapping[str, Any], timeout: timedelta = TIMEOUT) -> None:
        """Make sure that all processes have the same facts; each of them calls this with its own.

        Args:
            facts: values that JSON can hold, by the name of the option or what else they are.
            timeout: how long to wait for the others.

        Raises:
            ConfigError: they differ; the message is the same in all processes.
            OtherProcessError: as `all_gather`.
        """
        everyone = self.all_gather(dict(facts), timeout)
        names = dict.fromkeys(name for one in everyone for name in one)
        values = ((name, [one.get(name, "missing") for one in everyone]) for name in names)
        differences = list(filter(None, (_difference(name, found) for name, found in values)))
        if differences:
            more = len(differences) - _SHOWN
            rest = f"; and {count(more, 'more difference')}" if more > 0 else ""
            raise ConfigError(
                f"the processes of the run differ: {'; '.join(differences[:_SHOWN])}{rest}; give all of them the same "
                "options and the same data"
            )

    @contextmanager
    def share_failure(self) -> Iterator[None]:
        """Make an error that one process raises inside end all of them; one process on each machine says why.

        Raises:
            OtherProcessError: another process has raised one.
        """
        try:
            yield
            self.all_gather(None)
        except BaseException as error:
            ending = self._ending(error)
            if ending is error:
                raise
            raise ending from error

    def publish(self, error: BaseException) -> None:
        """Leave the reason why this process ends, unless another process has given it one."""
        if self.store is not None and not isinstance(error, OtherProcessError):
            with suppress(OtherProcessError), self._explained_store_errors():
                self._is_set_first(_FAILURE, self._reason(error))

    def _ending(self, error: BaseException) -> BaseException:
        """What to raise where an error ends this process, so that one process on each machine says why the run ends.

        Args:
            error: its own; or that another process has ended, whose reason is then looked up.

        Returns:
            The error itself if the run ends because of it, or if it is a bug, whose traceback is worth reading. Else an
            OtherProcessError with the reason.
        """
        if self.store is None:
            return error
        self.publish(error)
        ending = error
        with suppress(OtherProcessError), self._explained_store_errors():
            tells = self._is_set_first(f"{_TOLD}/{platform.node()}", str(self.rank))
            reason = self.store.get(_FAILURE).decode() if self.store.check([_FAILURE]) else str(error)
            if _has_message(error) and not (tells and reason == self._reason(error)):
                ending = OtherProcessError(reason, told=not tells)
            self._let_others_end()
        return ending

    def _reason(self, error: BaseException) -> str:
        reason = str(error) if isinstance(error, HdganError) else f"{type(error).__name__}: {error}"
        return f"process {self.rank}: {reason}"

    def _is_set_first(self, key: str, value: str) -> bool:
        """Set a value unless another process has; returns whether this one has."""
        assert self.store is not None
        return self.store.compare_set(key, "", value).decode() == value

    def _let_others_end(self) -> None:
        """Note that this process ends; the process with the store waits until the others have read the reason."""
        assert self.store is not None
        ended, until = self.store.add(_ENDED, 1), time.monotonic() + _STORE_TIMEOUT.total_seconds()
        has_store = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        while has_store and ended < self.size and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            ended = self.store.add(_ENDED, 0)

    def _wait(self, keys: Sequence[str], timeout: timedelta) -> None:
        assert self.store is not None
        until = time.monotonic() + timeout.total_seconds()
        while not self.store.check(list(keys)):
            if self.store.check([_FAILURE]):
                raise OtherProcessError(self.store.get(_FAILURE).decode())
            if time.monotonic() > until:
                silent = ", ".join(str(rank) for rank, key in enumerate(keys) if not self.store.check([key]))
                raise OtherProcessError(f"process {silent} has sent nothing for {timeout}: read its messages")
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _explained_store_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, HdganError):
                raise
            raise OtherProcessError("process 0 has ended: its message says why") from error


def _has_message(error: BaseException) -> bool:
    """Whether the programs print an error as one line rather than with its traceback."""
    return isinstance(error, HdganError | OSError)


def _difference(name: str, values: Sequence[Any]) -> str:
    """ "--seed is 0 in process 0, but 1 in process 1"; empty where all values are equal."""
    other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
    return "" if other is None else f"{name} is {values[0]} in process 0, but {values[other]} in process {other}"
