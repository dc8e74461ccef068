"""What the CUDA kernels ask of memory, counted: close to the least that they can ask for."""

import re
from pathlib import Path

import pytest

from tests.csrc.counted import build_counted, counting
from tests.csrc.traffic import count, read_table
from tests.csrc.traffic_cases import cases

LIMITS = {"load": 1.15, "store": 1.15, "memory": 1.05}
CHANGE = 0.02
"""A count further from its line in the table asks for a new table."""
EXCEPTIONS: list[tuple[str, str, float, str]] = []
"""Calls by their name, what of them is above its limit, the limit that they have instead, and why."""


@pytest.fixture(scope="session")
def counter(request):
    folder = Path(request.config.cache.mkdir("counted"))
    with counting(build_counted(folder)) as made:
        made.watch_races(True)
        yield made


@pytest.fixture(scope="session")
def table():
    return read_table()


def limit_of(name, quantity):
    found = [limit for pattern, of, limit, _ in EXCEPTIONS if of == quantity and re.search(pattern, name)]
    return found[0] if found else LIMITS[quantity]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_traffic(counter, table, case):
    """Sectors, bytes from memory, no race between blocks, and the table is that of these kernels."""
    rows = count(counter, case)
    assert rows
    for row in rows:
        name = "-".join(row.key)
        above = {quantity: value for quantity in LIMITS if (value := getattr(row, quantity)) > limit_of(name, quantity)}
        assert not above, f"{name}: {above}"
        known = table[row.key]
        for quantity in ("load", "store", "requested", "memory"):
            assert getattr(row, quantity) == pytest.approx(getattr(known, quantity), rel=CHANGE), (
                f"{name}: {quantity} differs from traffic.csv; run python -m tests.csrc.traffic"
            )


def test_table_names_the_cases(table):
    assert {key[:4] for key in table} == {(case.op, case.variant, case.layout, case.dtype) for case in cases()}


def test_every_exception_is_needed(table):
    """An exception whose counts are within the usual limit is taken off the list."""
    for pattern, quantity, _, reason in EXCEPTIONS:
        rows = [row for key, row in table.items() if re.search(pattern, "-".join(key))]
        assert any(getattr(row, quantity) > LIMITS[quantity] for row in rows), (pattern, quantity, reason)
