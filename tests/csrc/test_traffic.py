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
STREAMED = "an image whose channels interleave is larger than what the GPU holds, and the rest is read again"
ROWS = "rows of 66 elements begin and end within a sector, of which two stores or loads each write or read a part"
CACHED = "table entries come from the first-level cache"
EXCEPTIONS = [
    (r"instance_norm_act-(32x1024x2048|64x51).*nhwc.*_fwd$", "load", 1.9, STREAMED),
    (r"instance_norm_act-(32x1024x2048|64x51).*nhwc.*_fwd$", "memory", 1.45, STREAMED),
    (r"instance_norm_act-(32x1024x2048|64x51).*nhwc.*_bwd$", "load", 1.95, STREAMED),
    (r"instance_norm_act-(32x1024x2048|64x51).*nhwc.*_bwd$", "memory", 1.65, STREAMED),
    (
        r"instance_norm_act-1024x32x64.*nhwc.*_bwd$",
        "load",
        1.3,
        "mean and rstd are read by every thread of small planes",
    ),
    (r"instance_norm_act-1024x32x64.*nchw.*_fwd$", "load", 1.3, ROWS),
    (r"instance_norm_act-1024x32x64.*nchw.*_fwd$", "store", 1.35, ROWS),
    (r"instance_norm_act-64x512x1024.*nchw.*_fwd$", "load", 1.2, ROWS),
    (r"encode_labels-36x", "load", 4.5, "ids of neighbours above, below and beside; a twentieth of what is stored"),
    (r"encode_labels-codes", "load", 3.2, "ids of neighbours above, below and beside"),
    (r"instance_mean-.*broadcast$", "load", 7.0, CACHED),
    (r"instance_mean-.*reduce_sorted$", "load", 2.5, "pixels in the order of their instances, not of memory"),
    (r"instance_index-", "load", 1.3, "tables that are small beside a real map"),
    (r"instance_index-", "memory", 1.6, "tables that are small beside a real map"),
    (r"label_conv2d-", "load", 220.0, CACHED),
    (r"label_conv2d-", "store", 6.0, "sums of a table for each block, in float32 columns"),
    (r"label_conv2d-.*_fwd$", "memory", 2.6, "the sums of the table are made first, which counts beside a small image"),
    (r"label_conv2d-.*_bwd$", "memory", 30.0, "each block has a table of its own, which counts beside a small image"),
]
"""Calls by their name, what of them is above its limit, the limit that they have instead, and why."""


@pytest.fixture(scope="module")  # while it is there, ops in this process believe that CUDA kernels run on the host
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
@pytest.mark.parametrize("case", list(cases()), ids=str)
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
