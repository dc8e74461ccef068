"""What the processes of a run tell each other before they train, so that all of them end where one cannot go on.

They talk through the store by which PyTorch's processes find each other: it holds text and needs neither a backend nor
a GPU. A process that fails leaves the reason there before it ends, and the others end with it.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from hdgan.errors import ConfigError, HdganError
from hdgan.wording import count

T = TypeVar("T")

MEETING = timedelta(seconds=60)
"""How long a process waits for the others to start."""
PATIENCE = timedelta(hours=3)
"""How long it waits for them afterwards. While the main one measures, renders scenes or writes to a slow disk, they are
in a barrier. NCCL would end them after ten minutes. Torchrun sees at once that a process has died; one that hangs
nobody sees for as long."""
_FAREWELL = timedelta(seconds=10)
"""How long the process that holds the store waits for the others to read why a process has failed."""
_POLL_SECONDS = 0.05
_SHOWN = 3  # differences in a message
_FAILURE, _ENDED = "hdgan/failure", "hdgan/ended"  # keys of the store


class OtherProcessError(HdganError):
    """Another process of the run cannot go on; the message says why."""


@dataclass(frozen=True)
class Peers:
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    size: int = 1
    store: dist.Store | None = None
    """None for a process that is alone."""
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @staticmethod
    def meet(rank: int, size: int) -> Peers:
        """Find the other processes by the environment that torchrun sets.

        Args:
            rank: of this process.
            size: number of processes.

        Raises:
            OtherProcessError: they do not come.
        """
        try:
            store, *_ = next(dist.rendezvous("env://", timeout=MEETING))
        except RuntimeError as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise OtherProcessError(
                f"process {rank} has waited {MEETING.total_seconds():g} seconds for all {size} processes of the run to "
                f"meet at {where}: look at what the others say, then start all together"
            ) from error
        store.set_timeout(PATIENCE)
        return Peers(rank, size, store)

    def exchange(self, value: T, patience: timedelta = PATIENCE) -> list[T]:
        """Give a value to all processes. Each of them calls this as often as the others do.

        Args:
            value: what JSON holds.
            patience: how long to wait for the others.

        Returns:
            The values of all processes, in the order of their ranks.

        Raises:
            OtherProcessError: a process has failed, or has said nothing for as long as that.
        """
        if self.store is None:
            return [value]
        turn = next(self._turns)
        keys = [f"hdgan/{turn}/{rank}" for rank in range(self.size)]
        with self._store_there():
            self.store.set(keys[self.rank], json.dumps(value))
            self._wait(keys, patience)
            return [json.loads(self.store.get(key)) for key in keys]

    def require_alike(self, facts: Mapping[str, Any], patience: timedelta = PATIENCE) -> None:
        """Make sure that all processes have the same facts; each of them calls this with its own.

        Args:
            facts: what JSON holds, by the name of the option or what else it is.
            patience: how long to wait for the others.

        Raises:
            ConfigError: they differ; the same message in all processes.
            OtherProcessError: as `exchange`.
        """
        everyone = self.exchange(dict(facts), patience)
        names = dict.fromkeys(name for one in everyone for name in one)
        told = [text for name in names if (text := _difference(name, [one.get(name, "missing") for one in everyone]))]
        if told:
            more = f"; and in {count(len(told) - _SHOWN, 'more point')}" if len(told) > _SHOWN else ""
            raise ConfigError(
                f"the processes of the run differ: {'; '.join(told[:_SHOWN])}{more}; give all of them the same options "
                "and the same data"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what fails inside in one process end all of them.

        Raises:
            OtherProcessError: it has failed in another process.
        """
        try:
            yield
            self.exchange(None)
        except BaseException as error:
            if self.store is not None:
                with suppress(OtherProcessError), self._store_there():  # the error at hand is the one to show
                    self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Leave the reason for the others, unless one is there; the process of the store stays until they know it."""
        assert self.store is not None
        reason = str(error) if isinstance(error, HdganError) else f"{type(error).__name__}: {error}"
        self.store.compare_set(_FAILURE, "", f"process {self.rank}: {reason}")
        ended, until = self.store.add(_ENDED, 1), time.monotonic() + _FAREWELL.total_seconds()
        while self.rank == 0 and ended < self.size and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            ended = self.store.add(_ENDED, 0)

    def _wait(self, keys: Sequence[str], patience: timedelta) -> None:
        assert self.store is not None
        until = time.monotonic() + patience.total_seconds()
        while not self.store.check(list(keys)):
            if self.store.check([_FAILURE]):
                raise OtherProcessError(self.store.get(_FAILURE).decode())
            if time.monotonic() > until:
                silent = [rank for rank, key in enumerate(keys) if not self.store.check([key])]
                names = ", ".join(map(str, silent))
                raise OtherProcessError(f"nothing was heard of process {names} for {patience}: look at what it says")
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _store_there(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, HdganError):
                raise
            raise OtherProcessError("process 0 has ended: its own message says why") from error


def _difference(name: str, values: Sequence[Any]) -> str:
    """ "--seed is 0 in process 0, but 1 in process 1"; empty where all values are equal."""
    other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
    return "" if other is None else f"{name} is {values[0]} in process 0, but {values[other]} in process {other}"
