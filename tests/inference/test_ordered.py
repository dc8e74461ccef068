"""Work in threads, with its results in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hdgan.inference.ordered import Cores, in_order, runs


def failing(items: str) -> Iterator[str]:
    yield from items
    raise KeyError("the next item")


def test_results_have_the_order_of_the_items() -> None:
    def late(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(in_order(late, range(20), threads=4, ahead=6)) == [number * number for number in range(20)]
    assert list(in_order(late, [], threads=4, ahead=6)) == []


def test_only_so_many_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), threads=2, ahead=5)
    for number in range(10):
        assert next(results) == number
        assert len(taken) <= number + 5
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 14


@pytest.mark.parametrize("where", ["function", "items"])
def test_an_error_comes_after_the_results_before_it(where: str) -> None:
    def function(item: str) -> str:
        if item == "c":
            raise KeyError(item)
        return item

    found: list[object] = []
    results = in_order(function, "abcd" if where == "function" else failing("ab"), threads=3, ahead=4)
    with pytest.raises(KeyError, match="c" if where == "function" else "the next item"):
        found.extend(results)
    assert found == ["a", "b"]


def test_calls_that_have_begun_are_finished_and_others_do_not_begin() -> None:
    begun, finished = [], []
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(50)
        finally:
            closed.set()

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        finished.append(number)
        return number

    results = in_order(slow, items(), threads=2, ahead=20)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert sorted(begun) == sorted(finished)
    assert len(begun) < 10
    assert closed.is_set()


def test_runs_of_one_key() -> None:
    assert list(runs("aaabba", str, 2)) == [["a", "a"], ["a"], ["b", "b"], ["a"]]
    assert list(runs("", str, 2)) == []
    found: list[object] = []
    with pytest.raises(KeyError):
        found.extend(runs(failing("aab"), str, 5))
    assert found == [["a", "a"], ["b"]]


def test_no_more_cores_are_taken_than_there_are() -> None:
    cores, busy, most = Cores(3), [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        with cores.taken(number):
            with lock:
                busy[0] += number
                most[0] = max(most[0], busy[0])
            time.sleep(0.005)
            with lock:
                busy[0] -= number

    threads = [threading.Thread(target=work, args=(1 + k % 3,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [3]
