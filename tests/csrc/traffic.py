"""The table of counted traffic, tests/csrc/traffic.csv.

    python -m tests.csrc.traffic

counts anew and writes it. Do that after a change in csrc/ that changes the counts, and read the difference.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from tests.csrc.counted import SECTOR, Call, Counter, build_counted, counting, total
from tests.csrc.traffic_cases import Case, cases

TABLE = Path(__file__).with_suffix(".csv")
LEAST = 0.01
"""Loads or stores of a kernel that are less than this part of what the call has to move are not looked at."""


@dataclass(frozen=True)
class Traffic:
    """What a call of a function of hdgan._C moves, relative to the least that it can."""

    op: str
    variant: str
    layout: str
    dtype: str
    function: str
    load: float
    """Sectors that are asked for, by the different ones among them, in the kernel where this is worst."""
    store: float
    requested: float
    """Bytes of all sectors that are asked for, by the bytes of inputs and outputs."""
    memory: float
    """Bytes to and from memory, by the bytes of inputs and outputs."""

    @property
    def key(self) -> tuple[str, ...]:
        return self.op, self.variant, self.layout, self.dtype, self.function


def traffic_of(case: Case, call: Call) -> Traffic:
    floor = call.floor()
    worst = {"load": 0.0, "store": 0.0}
    for kernel in call.kernels:
        of_kernel = [access for access in call.accesses if access.kernel == kernel]
        for kind in worst:
            asked, unique = total(of_kernel, kind)
            if asked * SECTOR >= LEAST * floor:
                worst[kind] = max(worst[kind], asked / unique)
    asked = sum(access.sectors for access in call.accesses) * SECTOR
    ratios = worst["load"], worst["store"], asked / floor, call.dram / floor
    return Traffic(
        case.op, case.variant, case.layout, case.dtype, call.function, *(round(ratio, 3) for ratio in ratios)
    )


def count(counter: Counter, case: Case) -> list[Traffic]:
    """Run a case. A function that it calls several times is listed once."""
    torch.manual_seed(0)
    case.run()
    found = {call.function: traffic_of(case, call) for call in counter.take()}
    return [found[function] for function in sorted(found) if case.op in function]


FIELDS = fields(Traffic)


def _row(named: dict[str, Any]) -> Traffic:
    values: dict[str, Any] = {
        field.name: float(named[field.name]) if field.type == "float" else named[field.name] for field in FIELDS
    }
    return Traffic(**values)


def read_table() -> dict[tuple[str, ...], Traffic]:
    with TABLE.open(newline="") as file:
        rows = [_row(named) for named in csv.DictReader(file)]
    return {row.key: row for row in rows}


def write_table(rows: Iterable[Traffic]) -> None:
    lines = [",".join(field.name for field in FIELDS)]
    lines += [",".join(str(getattr(row, field.name)) for field in FIELDS) for row in rows]
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    folder = Path(os.environ.get("HDGAN_CACHE", ".pytest_cache")) / "counted"
    folder.mkdir(parents=True, exist_ok=True)
    with counting(build_counted(folder)) as counter:
        write_table([row for case in cases() for row in count(counter, case)])


if __name__ == "__main__":
    main()
