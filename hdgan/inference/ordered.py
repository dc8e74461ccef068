"""Work on a sequence of items in threads, with the results in the order of the items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Generator[R, None, None]:
    """Yield function(item) for each item, computed in threads ahead of the reader.

    An error, of the function or of the items themselves, is raised in its place: after the results of all items before.
    When the iterator is closed, or raises, calls that have begun are finished first, and no others begin.

    Args:
        function: called in threads.
        items: taken from in the thread that reads the results.
        threads: calls at the same time.
        ahead: most items that are waiting, in work, or done and not read yet.
    """
    source, failure, waiting = iter(items), None, deque[Future[R]]()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="hdgan")
    try:
        while True:
            while failure is None and len(waiting) < ahead:
                try:
                    waiting.append(pool.submit(function, next(source)))
                except Exception as error:  # StopIteration among them
                    failure = error
            if not waiting:
                break
            yield waiting.popleft().result()
        if failure is not None and not isinstance(failure, StopIteration):
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(source, Generator):
            source.close()


def runs(items: Iterable[T], key: Callable[[T], object], most: int) -> Iterator[list[T]]:
    """Items that follow each other and have one key, together in lists of at most `most`.

    If the items raise an error, those before it are yielded first.
    """
    run: list[T] = []
    try:
        for item in items:
            if run and key(item) != key(run[0]):
                yield run
                run = []
            run.append(item)
            if len(run) == most:
                yield run
                run = []
    except Exception:
        if run:
            yield run
        raise
    if run:
        yield run


class Cores:
    """A number of CPU cores that threads share.

    Args:
        number: of cores.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = number
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, number: int) -> Iterator[None]:
        """Wait until so many cores are free, and take them for the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= number)
            self._free -= number
        try:
            yield
        finally:
            with self._changed:
                self._free += number
                self._changed.notify_all()
